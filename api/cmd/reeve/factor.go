package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/boombuler/barcode/qr"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) factorCmd() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List your second factors", Example: "  reeve factor list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			all, err := call[client.FactorList](c.ListFactors(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(all, func() {
				var rows [][]any
				for _, f := range all.Items {
					rows = append(rows, []any{f.Name, f.Kind, yes(&f.Confirmed), when(&f.CreatedAt), when(f.LastUsedAt), f.Id})
				}
				a.table([]any{"name", "kind", "confirmed", "added", "last used", "id"}, rows)
				a.say("%d recovery codes are left", all.RecoveryCodes)
			})
		},
	}
	remove := &cobra.Command{
		Use: "remove ID", Short: "Remove a second factor of yours", Example: "  reeve factor remove fact_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RemoveFactor(cmd.Context(), args[0])); err != nil {
				return err
			}
			a.say("%s is removed", args[0])
			return nil
		},
	}
	codes := &cobra.Command{
		Use: "recovery-codes", Short: "Make new recovery codes; the old ones end", Example: "  reeve factor recovery-codes", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			made, err := call[client.RecoveryCodes](c.MakeRecoveryCodes(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(made, func() { a.recoveryCodes(made.Codes) })
		},
	}
	return group("factor", "Manage your second factors", "  reeve factor add-totp\n  reeve factor add-key\n  reeve factor list", list, a.factorAddCmd(), a.factorAddKeyCmd(), a.factorConfirmCmd(), remove, codes)
}

func (a *app) recoveryCodes(codes []string) {
	if len(codes) > 0 {
		a.say("recovery codes, each good once in place of the second factor; they are shown once, so keep them in a safe place:")
		_, _ = fmt.Fprintln(a.out, strings.Join(codes, "\n"))
	}
}

func (a *app) factorAddCmd() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "add-totp", Short: "Add an authenticator app as your second factor",
		Long:    "Add an authenticator app as your second factor. Scan the code, or open the link, which is shown once; then confirm with reeve factor confirm.",
		Example: "  reeve factor add-totp --name phone", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			made, err := call[client.CreatedFactor](c.AddFactor(cmd.Context(), client.FactorRequest{Name: &name}))
			if err != nil {
				return err
			}
			return a.show(made, func() {
				uri := str(made.Uri)
				if f, isFile := a.out.(*os.File); isFile && term.IsTerminal(int(f.Fd())) {
					if picture, err := qrText(uri); err == nil {
						_, _ = fmt.Fprint(a.out, picture)
					}
				}
				_, _ = fmt.Fprintln(a.out, uri)
				a.say("scan it within ten minutes, then: reeve factor confirm %s", made.Factor.Id)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "what to call it")
	return c
}

func (a *app) factorConfirmCmd() *cobra.Command {
	var codeFile string
	c := &cobra.Command{
		Use: "confirm ID", Short: "Confirm an authenticator app with a code that it shows; your other sessions end", Example: "  reeve factor confirm fact_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			code, err := a.readSecret(codeFile, "Code")
			if err != nil {
				return err
			}
			text := code.Reveal()
			got, err := call[client.RecoveryCodes](c.ConfirmFactor(cmd.Context(), args[0], client.ConfirmRequest{Code: &text}))
			if err != nil {
				return err
			}
			return a.show(got, func() {
				a.say("from now on you sign in with a code as well")
				a.recoveryCodes(got.Codes)
			})
		},
	}
	c.Flags().StringVar(&codeFile, "code-file", "-", "file with the code; - asks for it")
	return c
}

// qrText draws a QR code with two modules to a character, dark on light.
func qrText(text string) (string, error) {
	code, err := qr.Encode(text, qr.L, qr.Unicode)
	if err != nil {
		return "", err
	}
	const quiet = 4 // modules of margin, ISO/IEC 18004 §9.1
	size := code.Bounds().Dx()
	dark := func(x, y int) bool {
		if x < 0 || y < 0 || x >= size || y >= size {
			return false
		}
		r, _, _, _ := code.At(x, y).RGBA()
		return r == 0
	}
	var b strings.Builder
	for y := -quiet; y < size+quiet; y += 2 {
		for x := -quiet; x < size+quiet; x++ {
			switch up, down := dark(x, y), dark(x, y+1); {
			case up && down:
				b.WriteString(" ")
			case up:
				b.WriteString("▄")
			case down:
				b.WriteString("▀")
			default:
				b.WriteString("█")
			}
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}
