package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// subjects are the kinds of servers that can be had here. SQL Server, Oracle and Windows exist as emulators only, whose
// speed says nothing.
func subjects() []*subject {
	return []*subject{{
		connector: "ssh", role: "linux-standard", start: startLinux(22), bare: newBareSSH,
		note: "x/crypto/ssh, one kept connection as root and a fresh one for each proof; the same scripts, sent as they are, where the connector " +
			"has each wait until it is told to go",
	}, {
		connector: "telnet", role: "telnet-standard", start: startLinux(testlab.TelnetPort), bare: newBareTelnet,
		note: "a plain dialogue, one connection as root for a change and one for a proof; the same scripts, typed into a shell without a prompt",
	}, {
		connector: "mysql", role: "mysql-db-rw", params: map[string]string{"Database": "app"}, start: startMariaDB,
		bare: func(t sdk.Target) (keeper, error) { return newBareMySQL(t, sideBySide) },
		note: fmt.Sprintf("go-sql-driver, %d kept connections and a fresh one for each proof; the same statements", sideBySide),
	}, {
		connector: "postgres", role: "pg-db-ro", params: map[string]string{"Database": "app", "Schema": "public"}, start: startPostgres,
		bare: newBarePostgres,
		note: "pgx, kept connections and a fresh one for each proof; the same statements, with verifiers made by the client",
	}, {
		connector: "ad", role: "ad-helpdesk", params: map[string]string{"Group": benchGroup}, start: startSamba, bare: newBareAD,
		note: "go-ldap over LDAPS, kept connections and a fresh one for each proof; the same requests, each password set twice",
	}}
}

// startLinux starts a Debian host with sshd and telnetd.
func startLinux(port int) func(context.Context, *testlab.Lab) (sdk.Target, error) {
	return func(_ context.Context, l *testlab.Lab) (sdk.Target, error) {
		root := rand.Text()
		h, err := l.SSHHost(testlab.HostOptions{Telnet: port == testlab.TelnetPort, Accounts: []testlab.HostAccount{{Name: "root", Password: root}}})
		if err != nil {
			return sdk.Target{}, err
		}
		t := sdk.Target{Address: h.Addr, Port: port, Management: credential("root", root)}
		if port == testlab.TelnetPort {
			t.Options = map[string]string{"legacy": "yes"}
		} else {
			t.Trust.HostKeys = []string{h.HostKey()}
		}
		return t, nil
	}
}

func startMariaDB(_ context.Context, l *testlab.Lab) (sdk.Target, error) {
	db, err := l.MariaDB(testlab.MariaDBOptions{})
	if err != nil {
		return sdk.Target{}, err
	}
	return sdk.Target{Address: db.Addr, Port: db.Port, Trust: trust(db.Addr, db.CAPEM), Management: credential(testlab.Management, db.ManagementPassword)}, nil
}

func startPostgres(_ context.Context, l *testlab.Lab) (sdk.Target, error) {
	p, err := l.Postgres(testlab.PostgresOptions{})
	if err != nil {
		return sdk.Target{}, err
	}
	return sdk.Target{Address: p.Addr, Port: p.Port, Trust: trust(p.Addr, p.CAPEM), Management: credential(testlab.Management, p.ManagementPassword)}, nil
}

// benchGroup is the group that accounts of the domain become members of.
const benchGroup = "helpdesk"

func startSamba(ctx context.Context, l *testlab.Lab) (sdk.Target, error) {
	d, err := l.SambaAD(testlab.SambaOptions{})
	if err != nil {
		return sdk.Target{}, err
	}
	err = d.Add(ctx, "CN="+benchGroup+","+testlab.GroupsOU, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {benchGroup}})
	return sdk.Target{Address: d.Addr, Port: 636, Trust: trust(d.Addr, d.CAPEM), Management: credential(testlab.Management, d.ManagementPassword),
		Options: map[string]string{"account_ou": testlab.AccountsOU}}, err
}

// trust names the server that the certificate is for, wherever it is reached.
func trust(name, ca string) sdk.Trust { return sdk.Trust{ServerName: name, CAPEM: ca} }

func credential(user, password string) sdk.Credential {
	return sdk.Credential{Username: user, Password: sdk.NewSecret([]byte(password))}
}
