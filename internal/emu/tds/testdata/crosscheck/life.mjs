// The life of a login with tedious. Standard input is JSON: port, ca, encrypt, user, password.
// It prints what happened, one line each.
import { readFileSync } from 'node:fs';
import { Connection, Request, TYPES } from 'tedious';

const given = JSON.parse(readFileSync(0, 'utf8'));

function connect(userName, password) {
  return new Promise((resolve, reject) => {
    const connection = new Connection({
      server: '127.0.0.1',
      authentication: { type: 'default', options: { userName, password } },
      options: {
        port: given.port, encrypt: given.encrypt, trustServerCertificate: false, serverName: 'localhost',
        cryptoCredentialsDetails: { ca: given.ca }, database: 'master', connectTimeout: 20000,
      },
    });
    connection.connect((err) => (err ? reject(err) : resolve(connection)));
  });
}

function run(connection, sql, parameters = {}) {
  return new Promise((resolve, reject) => {
    const rows = [];
    const request = new Request(sql, (err) => (err ? reject(err) : resolve(rows)));
    request.on('row', (columns) => rows.push(columns.map((c) => (Buffer.isBuffer(c.value) ? c.value.toString('hex') : c.value))));
    for (const [name, value] of Object.entries(parameters)) request.addParameter(name, TYPES.NVarChar, value);
    if (Object.keys(parameters).length > 0) connection.execSql(request);
    else connection.execSqlBatch(request);
  });
}

const numbered = (f) => f.then(() => 0, (err) => err.number ?? err.code);

const sa = await connect(given.user, given.password);
await run(sa, "CREATE LOGIN [tedious]] x] WITH PASSWORD = N'It''s-first-1', SID = 0x00112233445566778899AABBCCDDEEFF");
await run(sa, 'ALTER SERVER ROLE [dbcreator] ADD MEMBER [tedious]] x]');
console.log(JSON.stringify(await run(sa, 'SELECT name, sid, is_disabled FROM sys.sql_logins WHERE name = @name', { name: 'tedious] x' })));
console.log('exists', await numbered(run(sa, "CREATE LOGIN [tedious]] x] WITH PASSWORD = N'It''s-first-1'")));
console.log('wrong', await numbered(connect('tedious] x', 'wrong')));
const own = await connect('tedious] x', "It's-first-1");
console.log(JSON.stringify(await run(own, 'SELECT ORIGINAL_LOGIN()')));
console.log('no right', await numbered(run(own, 'ALTER LOGIN [sa] DISABLE')));
const gone = new Promise((resolve) => own.on('error', resolve));
await run(sa, 'KILL ' + (await run(sa, "SELECT session_id FROM sys.dm_exec_sessions WHERE login_name = N'tedious] x'"))[0][0]);
await gone;
await run(sa, 'DROP LOGIN [tedious]] x]');
console.log('gone', await numbered(run(sa, 'DROP LOGIN [tedious]] x]')));
sa.close();
