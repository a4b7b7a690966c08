// Oracle's own thin client for Node.js leads an account through its life.
//
// Arguments: port, a folder it does not need, management account, its password. Node reads the
// certificates itself, by NODE_EXTRA_CA_CERTS. Unlike go-ora this client verifies the server's proof. Every failed expectation ends the program with an error.
import assert from "node:assert";
import oracledb from "oracledb";

const [port, , manager, managerPassword] = process.argv.slice(2);

const login = (user, password, privilege) =>
  oracledb.getConnection({ user, password, privilege, connectString: `tcps://127.0.0.1:${port}/ORCLPDB1?ssl_server_dn_match=off` });

async function refused(code, action) {
  await assert.rejects(action, (e) => {
    assert.equal(e.code, code, e.message);
    return true;
  });
}

const first = "p@s's;--w☃rd/&x", second = "other:pass?";
const admin = await login(manager, managerPassword);
assert.match(admin.oracleServerVersionString, /^23\./);
await admin.execute(`CREATE USER "THIN" IDENTIFIED BY "${first}" ACCOUNT LOCK`);
await refused("ORA-01920", () => admin.execute(`CREATE USER "THIN" IDENTIFIED BY "x"`));
await refused("ORA-28000", () => login("thin", first));
await admin.execute(`GRANT CREATE SESSION TO "THIN"`);
await admin.execute(`ALTER USER "THIN" ACCOUNT UNLOCK`);
await (await login("thin", first)).close();
await refused("ORA-01017", () => login("thin", second));
await admin.execute(`ALTER USER "THIN" IDENTIFIED BY "${second}"`);
await refused("ORA-01017", () => login("thin", first));
const session = await login(`"THIN"`, second);
const who = await session.execute(`SELECT SYS_CONTEXT('USERENV', 'SESSION_USER') FROM dual`);
assert.deepEqual(who.rows, [["THIN"]]);
await session.close();
const read = await admin.execute(`SELECT username, account_status FROM dba_users WHERE username = :1`, ["THIN"]);
assert.deepEqual(read.rows, [["THIN", "OPEN"]]);
const all = await admin.execute(`SELECT username, user_id, created FROM dba_users ORDER BY username`, [], { prefetchRows: 3, fetchArraySize: 50 });
assert(all.rows.length > 200 && all.rows.every((r) => r[1] >= 100 && r[2] instanceof Date));
await refused("ORA-01932", () => admin.execute(`GRANT DBA TO "THIN"`));
await refused("ORA-01031", () => admin.execute(`GRANT SYSBACKUP TO "THIN"`));
await refused("ORA-01031", () => login("thin", second, oracledb.SYSBACKUP));
const backup = await login(manager, managerPassword, oracledb.SYSBACKUP);
assert.deepEqual((await backup.execute(`SELECT SYS_CONTEXT('USERENV', 'SESSION_USER') FROM dual`)).rows, [["SYSBACKUP"]]);
await backup.execute(`GRANT SYSBACKUP TO "THIN"`);
await backup.close();
await (await login("thin", second, oracledb.SYSBACKUP)).close();
await admin.ping();
await admin.execute(`DROP USER "THIN"`);
await refused("ORA-01918", () => admin.execute(`DROP USER "THIN"`));
await admin.close();
console.log("passed");
