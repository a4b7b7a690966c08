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
		a.auditSinkAddCmd(), a.auditSinkListCmd(), a.auditSinkTestCmd(), a.auditSinkEditCmd(),
		a.auditSinkPauseCmd("pause", "Send a sink nothing for now; its limit holds", true), a.auditSinkPauseCmd("resume", "Send a paused sink what it lacks", false),
		a.auditSinkRemoveCmd())
}

func (a *app) auditSinkAddCmd() *cobra.Command {
	var syslog, url, file, secretFile, caFile string
	var cef, local bool
	var records int64
	var age time.Duration
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Send the audit trail somewhere, from its first record on",
		Long: `Sends the audit trail to a sink, from its first record on. Each record arrives at least once; a sink that is down or slow holds
up nobody and loses nothing. With --max-lag or --max-lag-records, no password is revealed and no trail exported while the sink is further behind.`,
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
	f.Int64Var(&records, "max-lag-records", 0, "refuse reveals and exports while it lacks more records; 0: never")
	f.DurationVar(&age, "max-lag", 0, "refuse reveals and exports while it lacks an older record, such as 15m; 0: never")
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
					if s.Paused != nil {
						state = "paused"
					}
					if s.OverLimit != nil {
						state += "; over its limit: reveals and exports are refused"
					}
					lag := fmt.Sprintf("%d records, %s", s.LagRecords, time.Duration(s.LagSeconds)*time.Second)
					rows = append(rows, []any{s.Name, s.Kind, s.To, s.Sequence, lag, when(s.SentAt), state})
				}
				a.table([]any{"name", "kind", "to", "has", "lacks", "last sent", "state"}, rows)
			})
		},
	}
}

func (a *app) auditSinkTestCmd() *cobra.Command {
	return &cobra.Command{
		Use: "test NAME", Short: "Send a test record to a sink, and say what happened",
		Long:    "The record is not of the trail: its sequence number is 0. A file sink gets it in a file beside its own, which then goes away. Also a paused sink gets it.",
		Example: "  reeve audit sink test siem", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := call[client.AuditSinkTest](c.TestAuditSink(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(r, func() { a.say("%s took a test record from %s after %d ms", r.To, r.From, r.Milliseconds) })
		},
	}
}

func (a *app) auditSinkEditCmd() *cobra.Command {
	var syslog, url, file, format, secretFile, caFile string
	var local, anyCA bool
	var records int64
	var age time.Duration
	cmd := &cobra.Command{
		Use: "edit NAME", Short: "Change where a sink is, its format, certificates, key or limits",
		Long: `What is not given stays as it is. The sink goes on from the record it has, and may get its last few again: a new receiver that is to
have the whole trail is a new sink.`,
		Example: `  reeve audit sink edit siem --syslog-tls siem2.example.com:6514 --sink-ca-file siem2-ca.pem
  reeve audit sink edit siem --format cef
  reeve audit sink edit siem --max-lag 0`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := client.AuditSinkChange{Address: given(syslog), Url: given(url), File: given(file)}
			changed := cmd.Flags().Changed
			if format != "" {
				in.Kind = new(client.AuditSinkChangeKind(format))
			}
			if changed("allow-local") {
				in.AllowLocal = &local
			}
			if changed("max-lag-records") {
				in.MaxLagRecords = &records
			}
			if changed("max-lag") {
				in.MaxLagSeconds = new(int64(age / time.Second))
			}
			if anyCA {
				in.Ca = new("")
			}
			if caFile != "" {
				pem, err := readNamed("--ca", caFile)
				if err != nil {
					return err
				}
				in.Ca = new(string(pem))
			}
			if secretFile != "" {
				secret, err := a.readSecret(secretFile, "secret")
				if err != nil {
					return err
				}
				in.Secret = new(secret.Reveal())
				secret.Wipe()
			}
			if in == (client.AuditSinkChange{}) {
				return usagef("say what to change: see reeve audit sink edit --help")
			}
			return a.changeSink(cmd, args[0], in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&syslog, "syslog-tls", "", "host:port of a syslog server with TLS")
	f.StringVar(&format, "format", "", "syslog or cef: what a syslog server gets")
	f.StringVar(&url, "https", "", "URL that takes signed JSON lines")
	f.StringVar(&secretFile, "secret-file", "", "file with the key that signs them, whsec_…; - for standard input")
	f.StringVar(&file, "file", "", "name of a file in audit-files below the leader's data directory")
	f.StringVar(&caFile, "sink-ca-file", "", "PEM file with who signs the sink's certificate")
	f.BoolVar(&anyCA, "any-ca", false, "let anybody sign it whom the controllers' machines trust")
	f.BoolVar(&local, "allow-local", false, "let it be at a loopback or link-local address")
	f.Int64Var(&records, "max-lag-records", 0, "refuse reveals and exports while it lacks more records; 0: never")
	f.DurationVar(&age, "max-lag", 0, "refuse reveals and exports while it lacks an older record, such as 15m; 0: never")
	cmd.MarkFlagsMutuallyExclusive("sink-ca-file", "any-ca")
	return cmd
}

func (a *app) auditSinkPauseCmd(use, short string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Example: "  reeve audit sink " + use + " siem", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSink(cmd, args[0], client.AuditSinkChange{Paused: &paused})
		},
	}
}

func (a *app) changeSink(cmd *cobra.Command, name string, in client.AuditSinkChange) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	s, err := call[client.AuditSink](c.EditAuditSink(cmd.Context(), name, &client.EditAuditSinkParams{IdempotencyKey: newKey()}, in))
	if err != nil {
		return err
	}
	return a.show(s, func() {
		if s.Paused != nil {
			a.say("%s gets nothing for now", s.Name)
			return
		}
		a.say("the trail goes to %s (%s), on from record %d", s.Name, s.To, s.Sequence)
	})
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
