// Package winrm is a Windows host as far as WinRM shows it: WS-Management shells over HTTP (MS-WSMV), logins with Basic and NTLM
// (MS-NLMP), and behind them a model of local accounts and groups. Tests of the connector use it; nothing else does.
//
// It is strict: a message, script or command that it does not know is refused as Windows would, and fails the test. It runs no
// PowerShell: scripts are recognised by their SHA-256 and done by a model in Go, so it proves that driver, wire and
// connector fit together, and not that Windows does what a script says. Scripts for one account wait for each other as their lock makes them,
// accounts are made in the two steps that Windows makes them in, rights outlive accounts, and passwords are looked at before the account's state.
//
// It records what a host would log, command lines (event 4688) and script blocks (4104), and makes trouble on demand.
package winrm
