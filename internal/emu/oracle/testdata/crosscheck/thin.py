"""Oracle's own thin client for Python leads an account through its life.

Arguments: port, certificates, management account, its password.
Every failed expectation ends the program with a traceback.
"""
import sys

import oracledb

port, ca, manager, manager_password = sys.argv[1:]


def login(user, password, mode=oracledb.AUTH_MODE_DEFAULT):
    return oracledb.connect(
        user=user, password=password, mode=mode, dsn=f"tcps://127.0.0.1:{port}/ORCLPDB1?ssl_server_dn_match=off", wallet_location=ca)


def refused(code, action):
    try:
        action()
    except oracledb.DatabaseError as e:
        got = e.args[0].full_code
        assert got == code, f"{got} instead of {code}: {e}"
    else:
        raise AssertionError(f"no {code}")


first, second = "p@s's;--w☃rd/&x", "other:pass?"
admin = login(manager, manager_password)
assert admin.version.startswith("23."), admin.version
cursor = admin.cursor()
cursor.execute(f'CREATE USER "THIN" IDENTIFIED BY "{first}" ACCOUNT LOCK')
refused("ORA-01920", lambda: cursor.execute('CREATE USER "THIN" IDENTIFIED BY "x"'))
refused("ORA-28000", lambda: login("thin", first))
cursor.execute('GRANT CREATE SESSION TO "THIN"')
cursor.execute('ALTER USER "THIN" ACCOUNT UNLOCK')
login("thin", first).close()
refused("ORA-01017", lambda: login("thin", second))
cursor.execute(f'ALTER USER "THIN" IDENTIFIED BY "{second}"')
refused("ORA-01017", lambda: login("thin", first))
refused("ORA-01017", lambda: login("nobody", first))
with login('"THIN"', second) as session:
    c = session.cursor()
    c.execute("SELECT SYS_CONTEXT('USERENV', 'SESSION_USER') FROM dual")
    assert c.fetchall() == [("THIN",)]
cursor.execute("SELECT username, account_status FROM dba_users WHERE username = :1", ["THIN"])
assert cursor.fetchall() == [("THIN", "OPEN")]
cursor.execute("SELECT username, user_id, created FROM dba_users ORDER BY username")
cursor.prefetchrows = 1
rows = cursor.fetchall()
assert len(rows) > 200 and all(u >= 100 for _, u, _ in rows), rows
cursor.execute("SELECT granted_role FROM dba_role_privs WHERE grantee = :1", ["THIN"])
assert cursor.fetchall() == []
refused("ORA-01932", lambda: cursor.execute('GRANT DBA TO "THIN"'))
refused("ORA-01031", lambda: cursor.execute('GRANT SYSBACKUP TO "THIN"'))
refused("ORA-01031", lambda: login("thin", second, oracledb.AUTH_MODE_SYSBKP))
with login(manager, manager_password, oracledb.AUTH_MODE_SYSBKP) as backup:
    backup.cursor().execute('GRANT SYSBACKUP TO "THIN"')
login("thin", second, oracledb.AUTH_MODE_SYSBKP).close()
admin.ping()
cursor.execute('DROP USER "THIN"')
refused("ORA-01918", lambda: cursor.execute('DROP USER "THIN"'))
admin.close()
print("passed")
