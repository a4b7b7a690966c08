package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

// managementFlags are the flags that describe a management account.
type managementFlags struct{ username, passwordFile, keyFile string }

func (m *managementFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.username, "username", "", "management account: user name on the target")
	cmd.Flags().StringVar(&m.passwordFile, "password-file", "", "management account: file with its password; - asks for it")
	cmd.Flags().StringVar(&m.keyFile, "key-file", "", "management account: file with its private key (PEM, unencrypted)")
}

func (m *managementFlags) request(a *app) (*client.ManagementAccountRequest, error) {
	if m.username == "" && m.passwordFile == "" && m.keyFile == "" {
		return nil, nil
	}
	if m.username == "" || (m.passwordFile == "") == (m.keyFile == "") {
		return nil, usagef("a management account takes --username and one of --password-file and --key-file")
	}
	req := &client.ManagementAccountRequest{Username: m.username}
	path, what, to := m.passwordFile, "Password of "+m.username, &req.Password
	if m.keyFile != "" {
		path, what, to = m.keyFile, "Private key of "+m.username, &req.PrivateKey
	}
	s, err := a.readSecret(path, what)
	if err != nil {
		return nil, err
	}
	text := s.Reveal()
	if m.keyFile != "" {
		text += "\n"
	}
	*to = &text
	return req, nil
}

func (a *app) assetCmd() *cobra.Command {
	return group("asset", "Manage the systems on which accounts live",
		"  reeve asset list\n  reeve asset add web01 --site dmz --connector ssh --address 192.0.2.10 --username root --password-file -",
		a.assetAddCmd(), a.assetListCmd(), a.assetShowCmd(), a.assetVerifyCmd(), a.assetRightsCmd(), a.assetTrustCmd(), a.assetManagementCmd(), a.assetLabelCmd(), a.assetRetireCmd())
}

func (a *app) assetLabelCmd() *cobra.Command {
	var tags map[string]string
	c := &cobra.Command{
		Use: "label NAME", Short: "Replace the tags of an asset", Example: "  reeve asset label web01 --tag team=web --tag env=production", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			as, err := call[client.Asset](c.LabelAsset(cmd.Context(), args[0], &client.LabelAssetParams{IdempotencyKey: newKey()}, client.TagsRequest{Tags: tags}))
			if err != nil {
				return err
			}
			return a.show(as, func() { a.say("asset %s has the tags %s", as.Name, sortedPairs(as.Tags)) })
		},
	}
	c.Flags().StringToStringVar(&tags, "tag", map[string]string{}, "key=value; may be repeated; without any, all are removed")
	return c
}

func (a *app) assetAddCmd() *cobra.Command {
	var req client.AssetRequest
	var port int
	var options, tags map[string]string
	var hostKeyFile, caFile, serverName, description string
	var mgmt managementFlags
	var watch bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Add an asset, with the management account Reeve works with",
		Long: `Adds an asset. With a management account, an agent of the site logs in at once and checks its rights.

An SSH host key that was not imported with --host-key-file is shown at first contact and must be approved
with "reeve asset trust". Certificates are checked against --asset-ca-file.

Connectors for SQL Server, Oracle, Windows and Telnet refuse to work without TLS unless the asset has
--option legacy=yes. Then everything, new passwords included, may cross the network in the clear, and the
asset, its accounts and its jobs are marked "⚠ legacy" wherever they are listed.`,
		Example: `  reeve asset add web01 --site dmz --connector ssh --address 192.0.2.10 --username root --password-file - --watch
  reeve asset add web02 --site dmz --connector ssh --address 192.0.2.11 --host-key-file web02.pub --username ops --key-file ops.pem
  reeve asset add shop --site lan --connector mysql --address db.example.org --asset-ca-file db-ca.pem --username reeve --password-file pw`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			req.Name = args[0]
			if port != 0 {
				req.Port = &port
			}
			if len(tags) > 0 {
				req.Tags = &tags
			}
			if len(options) > 0 {
				req.Options = &options
			}
			if description != "" {
				req.Description = &description
			}
			if serverName != "" {
				req.ServerName = &serverName
			}
			if req.HostKeys, err = lines(hostKeyFile); err != nil {
				return err
			}
			if req.CaPem, err = readText("--asset-ca-file", caFile); err != nil {
				return err
			}
			if req.ManagementAccount, err = mgmt.request(a); err != nil {
				return err
			}
			as, err := call[client.Asset](c.AddAsset(cmd.Context(), &client.AddAssetParams{IdempotencyKey: newKey()}, req))
			if err != nil {
				return err
			}
			if watch && req.ManagementAccount != nil {
				a.say("asset %s is there; its management account is being verified", as.Name)
				return a.verifyAsset(cmd.Context(), c, as.Name)
			}
			return a.show(as, func() {
				a.say("asset %s is there (%s)", as.Name, as.Id)
				if as.Legacy {
					a.say("⚠ legacy: what is sent to it, new passwords included, may be read on the way")
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Site, "site", "", "site the asset is in (required)")
	f.StringVar(&req.Connector, "connector", "", "connector that knows it, e.g. ssh (required)")
	f.StringVar(&req.Address, "address", "", "host name or IP, as the site's agents see it (required)")
	f.IntVar(&port, "port", 0, "port, if not the connector's default")
	f.StringToStringVar(&options, "option", nil, "connector option, key=value; may be repeated")
	f.StringToStringVar(&tags, "tag", nil, "tag by which scopes tell assets apart, key=value; may be repeated")
	f.StringVar(&description, "description", "", "what the asset is")
	f.StringVar(&hostKeyFile, "host-key-file", "", "file with the host's public keys, one a line")
	f.StringVar(&caFile, "asset-ca-file", "", "PEM file with the authority of the asset's certificate")
	f.StringVar(&serverName, "server-name", "", "name in the asset's certificate, if not the address")
	f.BoolVar(&watch, "watch", false, "wait until the management account is verified")
	mgmt.add(cmd)
	for _, name := range []string{"site", "connector", "address"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// lines reads a file of lines, leaving out empty ones and comments.
func lines(path string) (*[]string, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := readNamed("--host-key-file", path)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, l := range strings.Split(string(raw), "\n") {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return &out, nil
}

func (a *app) assetListCmd() *cobra.Command {
	var site string
	cmd := &cobra.Command{
		Use: "list", Short: "List assets", Example: "  reeve asset list --site dmz", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			items := []client.Asset{}
			err = pages(func(cur *string) (*string, error) {
				p := &client.ListAssetsParams{Cursor: cur}
				if site != "" {
					p.Site = &site
				}
				page, err := call[client.AssetPage](c.ListAssets(cmd.Context(), p))
				items = append(items, page.Items...)
				return page.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(items, func() {
				var rows [][]any
				for _, as := range items {
					rows = append(rows, []any{as.Name, as.Site, as.Connector, fmt.Sprintf("%s:%d", as.Address, as.Port),
						strings.TrimSpace(str(as.Product) + " " + str(as.ProductVersion)), legacyMark(as.Legacy), managementState(as)})
				}
				a.table([]any{"name", "site", "connector", "address", "product", "protection", "management account"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only assets of this site")
	return cmd
}

// legacyMark warns of an asset that may be reached without the protection others have.
func legacyMark(legacy bool) string {
	if legacy {
		return "⚠ legacy"
	}
	return ""
}

// keyChanged reports whether the asset shows another key than the trusted one, which is
// not to be approved as lightly as a first one.
func keyChanged(as client.Asset) bool {
	m := as.ManagementAccount
	return m != nil && m.LastError != nil && m.LastError.Class == "host_key_changed"
}

func managementState(as client.Asset) string {
	m := as.ManagementAccount
	switch {
	case as.PendingFingerprint != nil && !keyChanged(as):
		return "? host key waits for approval"
	case as.Alert != nil:
		return "✗ " + *as.Alert
	case m == nil:
		return "– none"
	case m.Verified && (m.MissingRights == nil || len(*m.MissingRights) == 0):
		return "✓ " + m.Username
	case m.Verified:
		return "! " + m.Username + " lacks rights"
	case m.LastError != nil:
		return "✗ " + m.Username + ": " + m.LastError.Class
	default:
		return "… " + m.Username + " unverified"
	}
}

func (a *app) assetShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an asset", Example: "  reeve asset show web01", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			as, err := call[client.Asset](c.GetAsset(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.showAsset(as)
		},
	}
}

func (a *app) showAsset(as client.Asset) error {
	return a.show(as, func() {
		kv := []string{"asset", as.Name, "id", as.Id, "site", as.Site, "connector", as.Connector, "address", fmt.Sprintf("%s:%d", as.Address, as.Port),
			"description", str(as.Description), "tags", sortedPairs(as.Tags), "options", sortedPairs(as.Options), "product", strings.TrimSpace(str(as.Product) + " " + str(as.ProductVersion)),
			"status", as.Status, "protection", legacyMark(as.Legacy), "alert", str(as.Alert), "host key to approve", str(as.PendingFingerprint), "management account", managementState(as)}
		if as.Trusted != nil {
			kv = append(kv, "trusted", strings.Join(*as.Trusted, "\n"))
		}
		if m := as.ManagementAccount; m != nil {
			kv = append(kv, "verified", when(m.VerifiedAt), "verified by", str(m.VerifiedBy))
			if m.MissingRights != nil {
				kv = append(kv, "missing rights", strings.Join(*m.MissingRights, "\n"))
			}
			if m.LastError != nil {
				kv = append(kv, "last error", m.LastError.Message, "to do", str(m.LastError.Fix))
			}
		}
		a.pairs(kv...)
	})
}

func (a *app) assetVerifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify NAME", Short: "Log in with the management account and check its rights", Example: "  reeve asset verify web01", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.verifyAsset(cmd.Context(), c, args[0])
		},
	}
}

// verifyAsset probes the asset, follows the job and shows what was found. It fails
// unless the management account is verified and has its rights.
func (a *app) verifyAsset(ctx context.Context, c *api, name string) error {
	ref, err := call[client.JobRef](c.VerifyAsset(ctx, name, &client.VerifyAssetParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	failed := a.followJob(ctx, c, ref.Job, a.progress(""), a.progress(""))
	as, err := call[client.Asset](c.GetAsset(ctx, name))
	switch {
	case err != nil:
		return errors.Join(failed, err)
	case as.PendingFingerprint != nil && keyChanged(as):
		return fmt.Errorf("%s does not show the key that is trusted; somebody may be between the agents and it [host_key_changed]\n"+
			"  to do: find out why; only if what it shows now is right: reeve asset trust %s --fingerprint %s", name, name, *as.PendingFingerprint)
	case as.PendingFingerprint != nil:
		return fmt.Errorf("%s must be trusted first; compare the fingerprint with the host's own, then:\n  reeve asset trust %s --fingerprint %s",
			name, name, *as.PendingFingerprint)
	case failed != nil:
		return failed
	}
	if err := a.showAsset(as); err != nil {
		return err
	}
	if state := managementState(as); !strings.HasPrefix(state, "✓") {
		return fmt.Errorf("the management account of %s is not ready: %s", name, state)
	}
	return nil
}

func (a *app) assetTrustCmd() *cobra.Command {
	var req client.TrustRequest
	var fingerprint, hostKeyFile, caFile, serverName string
	cmd := &cobra.Command{
		Use: "trust NAME", Short: "Approve a host key, or import keys or certificates",
		Example: "  reeve asset trust web01 --fingerprint SHA256:w3n1…\n  reeve asset trust web01 --host-key-file web01.pub\n  reeve asset trust shop --asset-ca-file db-ca.pem",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if fingerprint == "" && hostKeyFile == "" && caFile == "" {
				return usagef("give --fingerprint, --host-key-file or --asset-ca-file")
			}
			if fingerprint != "" {
				req.Fingerprint = &fingerprint
			}
			if req.HostKeys, err = lines(hostKeyFile); err != nil {
				return err
			}
			if req.CaPem, err = readText("--asset-ca-file", caFile); err != nil {
				return err
			}
			if serverName != "" {
				req.ServerName = &serverName
			}
			as, err := call[client.Asset](c.TrustAsset(cmd.Context(), args[0], &client.TrustAssetParams{IdempotencyKey: newKey()}, req))
			if err != nil {
				return err
			}
			return a.show(as, func() {
				a.say("%s is trusted; now: reeve asset verify %s", as.Name, as.Name)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&fingerprint, "fingerprint", "", "fingerprint of the key seen at first contact")
	f.StringVar(&hostKeyFile, "host-key-file", "", "file with the host's public keys, one a line")
	f.StringVar(&caFile, "asset-ca-file", "", "PEM file with the authority of the asset's certificate")
	f.StringVar(&serverName, "server-name", "", "name in the asset's certificate, if not the address")
	return cmd
}

func (a *app) assetManagementCmd() *cobra.Command {
	var mgmt managementFlags
	cmd := &cobra.Command{
		Use: "set-management NAME", Short: "Set the account with which Reeve works on the asset",
		Example: "  reeve asset set-management web01 --username root --password-file -", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			req, err := mgmt.request(a)
			if err != nil {
				return err
			}
			if req == nil {
				return usagef("give --username and one of --password-file and --key-file")
			}
			if _, err := call[client.Asset](c.SetManagementAccount(cmd.Context(), args[0], &client.SetManagementAccountParams{IdempotencyKey: newKey()}, *req)); err != nil {
				return err
			}
			return a.verifyAsset(cmd.Context(), c, args[0])
		},
	}
	mgmt.add(cmd)
	return cmd
}

func (a *app) assetRetireCmd() *cobra.Command {
	return &cobra.Command{
		Use: "retire NAME", Short: "Take an asset without accounts out of use", Example: "  reeve asset retire web01", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RetireAsset(cmd.Context(), args[0], &client.RetireAssetParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("asset %s is out of use; its accounts' history stays", args[0])
			return nil
		},
	}
}
