package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) auditSinkCmd() *cobra.Command {
	return group("sink", "Send the audit trail to syslog, to a web address or into a file",
		"  reeve audit sink add siem --syslog-tls siem.example.com:6514 --sink-ca-file siem-ca.pem\n  reeve audit sink list",
		a.auditSinkAddCmd(), a.auditSinkListCmd(), a.auditSinkRemoveCmd())
}

func (a *app) auditSinkAddCmd() *cobra.Command {
	var syslog, url, file, secretFile, caFile string
	var cef, local bool
	var records int64
	var age time.Duration
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Send the audit trail somewhere, from its first record on",
		Long: `Sends the audit trail to a sink, from its first record on. Each record arrives at least once; a sink that is down or slow holds
up nobody and loses nothing. With --max-lag or --max-lag-records, passwords are not revealed while the sink is further behind.`,
		Example: `  reeve audit sink add siem --syslog-tls siem.example.com:6514 --sink-ca-file siem-ca.pem --max-lag 15m
  reeve audit sink add arcsight --syslog-tls cef.example.com:6514 --cef
  (printf whsec_; openssl rand -base64 32) > hook.secret && reeve audit sink add hook --https https://siem.example.com/reeve --secret-file hook.secret
  reeve audit sink add local --file trail.jsonl`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := 0
			in := client.AuditSinkRequest{Name: args[0]}
			if syslog != "" {
				in.Kind, in.Address = client.AuditSinkRequestKind("syslog"), &syslog
				given++
			}
			if url != "" {
				in.Kind, in.Url = client.AuditSinkRequestKind("https"), &url
				given++
			}
			if file != "" {
				in.Kind, in.File = client.AuditSinkRequestKind("file"), &file
				given++
			}
			if given != 1 {
				return usagef("say where to: one of --syslog-tls, --https and --file")
			}
			if cef && syslog == "" || (secretFile != "") != (url != "") {
				return usagef("--cef goes with --syslog-tls, and --secret-file with --https")
			}
			if cef {
				in.Kind = client.AuditSinkRequestKind("cef")
			}
			if local {
				in.AllowLocal = &local
			}
			if records > 0 {
				in.MaxLagRecords = &records
			}
			if seconds := int64(age / time.Second); seconds > 0 {
				in.MaxLagSeconds = &seconds
			}
			ca, err := readText("--sink-ca-file", caFile)
			if err != nil {
				return err
			}
			in.Ca = ca
			if secretFile != "" {
				secret, err := a.readSecret(secretFile, "secret")
				if err != nil {
					return err
				}
				text := secret.Reveal()
				secret.Wipe()
				in.Secret = &text
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := call[client.AuditSink](c.AddAuditSink(cmd.Context(), &client.AddAuditSinkParams{IdempotencyKey: newKey()}, in))
			if err != nil {
				return err
			}
			return a.show(s, func() { a.say("the trail goes to %s (%s) from now on, from its first record", s.Name, s.To) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&syslog, "syslog-tls", "", "host:port of a syslog server with TLS (RFC 5424, 5425)")
	f.BoolVar(&cef, "cef", false, "send the Common Event Format to it")
	f.StringVar(&url, "https", "", "URL that takes signed JSON lines")
	f.StringVar(&secretFile, "secret-file", "", "file with the key that signs them, whsec_…; - for standard input")
	f.StringVar(&file, "file", "", "name of a file in audit-files below the leader's data directory")
	f.StringVar(&caFile, "sink-ca-file", "", "PEM file with who signs the sink's certificate; left out: whom the controllers' machines trust")
	f.BoolVar(&local, "allow-local", false, "let it be at a loopback or link-local address")
	f.Int64Var(&records, "max-lag-records", 0, "refuse reveals while it lacks more records; 0: never")
	f.DurationVar(&age, "max-lag", 0, "refuse reveals while it lacks an older record, such as 15m; 0: never")
	return cmd
}

func (a *app) auditSinkListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the sinks, how far each is behind, and why", Example: "  reeve audit sink list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			l, err := call[client.AuditSinkList](c.ListAuditSinks(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(l.Items, func() {
				var rows [][]any
				for _, s := range l.Items {
					state := "✓ takes records"
					if s.LastError != nil {
						state = "✗ since " + when(s.ErrorAt) + ": " + *s.LastError
					}
					lag := fmt.Sprintf("%d records, %s", s.LagRecords, time.Duration(s.LagSeconds)*time.Second)
					rows = append(rows, []any{s.Name, s.Kind, s.To, s.Sequence, lag, when(s.SentAt), state})
				}
				a.table([]any{"name", "kind", "to", "has", "lacks", "last sent", "state"}, rows)
			})
		},
	}
}

func (a *app) auditSinkRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Send the trail there no more; what is there stays", Example: "  reeve audit sink remove siem", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveAuditSink(cmd.Context(), args[0], &client.RemoveAuditSinkParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("the trail no longer goes to %s", args[0])
			return nil
		},
	}
}

func (a *app) systemCmd() *cobra.Command {
	services := &cobra.Command{
		Use: "services", Short: "List what the cluster does by itself, on or off, and when it last did", Example: "  reeve system services", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			l, err := call[client.ServiceList](c.ListServices(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(l, func() {
				var rows [][]any
				for _, s := range l.Items {
					state := "always on"
					if s.Switched {
						state = onOff(s.Enabled)
					}
					rows = append(rows, []any{s.Name, state, l.Leader, when(s.LastTick), str(s.LastError), when(s.ErrorAt), s.Does})
				}
				a.table([]any{"service", "state", "runs on", "last tick", "last error", "at", "what it does"}, rows)
			})
		},
	}
	return group("system", "See and switch what the cluster does by itself", "  reeve system services\n  reeve system disable lifecycle",
		services, a.systemSwitchCmd("enable", "Switch a service on"), a.systemSwitchCmd("disable", "Switch a service off; what it is asked for is then refused"))
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (a *app) systemSwitchCmd(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use + " SERVICE", Short: short, Example: "  reeve system " + use + " lifecycle", Args: exactArgs("SERVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			key := newKey()
			do := func() (client.Service, error) {
				return call[client.Service](c.EnableService(cmd.Context(), args[0], &client.EnableServiceParams{IdempotencyKey: key}))
			}
			if use == "disable" {
				do = func() (client.Service, error) {
					return call[client.Service](c.DisableService(cmd.Context(), args[0], &client.DisableServiceParams{IdempotencyKey: key}))
				}
			}
			s, err := do()
			if err != nil {
				return err
			}
			return a.show(s, func() { a.say("%s is %s", s.Name, onOff(s.Enabled)) })
		},
	}
}
