package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) loginCmd() *cobra.Command {
	var passwordFile, provider string
	var with factorFlags
	c := &cobra.Command{
		Use: "login [NAME]", Short: "Sign in, and keep the session in the context file",
		Args: func(cmd *cobra.Command, args []string) error {
			if provider != "" {
				return exactArgs()(cmd, args)
			}
			return exactArgs("NAME")(cmd, args)
		},
		Long: `Sign in with a password, or with --oidc through a browser on this machine at an OpenID provider. The session is kept in the context
file (mode 0600), where it counts before a token; it ends 15 minutes after its last use and 12 hours after it began.

With --oidc, open the address that is printed. The page at the end shows a code; type yes if it is the one in the terminal.

A second factor is asked for if there is one: a code, or a security key in a browser on this machine. With both, --key says that it
is to be the key.`,
		Example: "  reeve login ada\n  reeve login ada --password-file ada.password\n  reeve login ada --key\n  reeve login --oidc corp",
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.tokenFile != "" {
				return usagef("reeve login takes no --token-file: it signs in with a password or a browser")
			}
			if provider != "" {
				return a.loginOIDC(cmd.Context(), provider)
			}
			ctx, err := a.loadContext()
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			password, err := a.readSecret(passwordFile, "Password of "+args[0])
			if err != nil {
				return err
			}
			text := password.Reveal()
			made, err := withFactor(cmd.Context(), a, with, func() (client.KeyChallenge, error) {
				return call[client.KeyChallenge](c.BeginSignIn(cmd.Context(), client.SignInChallengeRequest{Name: args[0], Password: &text}, anonymous))
			}, func(code, answer *string) (client.CreatedSession, error) {
				return call[client.CreatedSession](c.SignIn(cmd.Context(), client.SignInRequest{Name: args[0], Password: &text, Code: code, Answer: answer}, anonymous))
			})
			if err != nil {
				return err
			}
			ctx.Session = made.Secret
			if err := a.saveContext(ctx); err != nil {
				return err
			}
			return a.show(made.Session, func() {
				a.say("signed in as %s until %s, or 15 minutes after the last use", made.Session.User, when(&made.Session.EndsAt))
			})
		},
	}
	c.Flags().StringVar(&passwordFile, "password-file", "-", "file with the password; - asks for it")
	c.Flags().StringVar(&provider, "oidc", "", "sign in at this OpenID provider instead (reeve oidc list)")
	with.on(c)
	return c
}

// anonymous takes the credentials of the context file from a request that needs none.
func anonymous(_ context.Context, r *http.Request) error {
	r.Header.Del("Authorization")
	return nil
}

func (a *app) logoutCmd() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End the session of the context file", Example: "  reeve logout", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := a.loadContext()
			if err != nil {
				return err
			}
			if ctx.Session == "" {
				return usagef("nobody is signed in with this context file (%s)", a.contextFile)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			_, ended := call[none](c.EndSession(cmd.Context(), "current"))
			if r, ok := errors.AsType[*refusal](ended); ended != nil && (!ok || r.status != http.StatusUnauthorized) { // else it is over already
				return ended
			}
			ctx.Session = ""
			if err := a.saveContext(ctx); err != nil {
				return err
			}
			a.say("signed out")
			return nil
		},
	}
}

// saveContext writes the context file anew, or not at all.
func (a *app) saveContext(ctx contextFile) error {
	if a.contextFile == "" {
		return usagef("no context file is named: give --context")
	}
	raw, err := yaml.Marshal(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(a.contextFile), 0o700); err != nil {
		return usagef("context file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(a.contextFile), ".context-*") // made with mode 0600
	if err != nil {
		return usagef("context file: %w", err)
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), a.contextFile)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return usagef("context file: %w", err)
	}
	return nil
}

func (a *app) sessionCmd() *cobra.Command {
	var user, passwordFile string
	var with factorFlags
	list := &cobra.Command{
		Use: "list", Short: "List your sessions, or those of a user", Example: "  reeve session list\n  reeve session list --user ada", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			in := &client.ListSessionsParams{}
			if user != "" {
				in.User = &user
			}
			all, err := call[client.SessionList](c.ListSessions(cmd.Context(), in))
			if err != nil {
				return err
			}
			return a.show(all.Items, func() {
				var rows [][]any
				for _, s := range all.Items {
					current := ""
					if s.Current {
						current = "this one"
					}
					rows = append(rows, []any{s.User, when(&s.CreatedAt), when(&s.LastSeenAt), when(&s.EndsAt), s.From, strings.Join(s.Methods, " "), current, s.Id})
				}
				a.table([]any{"user", "began", "last seen", "ends", "from", "signed in by", "", "id"}, rows)
			})
		},
	}
	list.Flags().StringVar(&user, "user", "", "whose; left out: yours")
	end := &cobra.Command{
		Use: "end ID", Short: "End a session", Example: "  reeve session end sess_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.EndSession(cmd.Context(), args[0])); err != nil {
				return err
			}
			a.say("%s is ended", args[0])
			return nil
		},
	}
	stepUp := &cobra.Command{
		Use: "step-up", Short: "Prove again that it is you, for what needs a fresh proof", Example: "  reeve session step-up\n  reeve session step-up --key", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			password, err := a.readSecret(passwordFile, "Password")
			if err != nil {
				return err
			}
			text := password.Reveal()
			s, err := withFactor(cmd.Context(), a, with, func() (client.KeyChallenge, error) {
				return call[client.KeyChallenge](c.BeginStepUp(cmd.Context(), client.StepUpChallengeRequest{Password: &text}))
			}, func(code, answer *string) (client.Session, error) {
				return call[client.Session](c.StepUp(cmd.Context(), client.StepUpRequest{Password: &text, Code: code, Answer: answer}))
			})
			if err != nil {
				return err
			}
			return a.show(s, func() { a.say("good for five minutes") })
		},
	}
	stepUp.Flags().StringVar(&passwordFile, "password-file", "-", "file with the password; - asks for it")
	with.on(stepUp)
	return group("session", "See and end sessions of people who signed in", "  reeve session list\n  reeve session step-up", list, end, stepUp, a.passwordCmd())
}

func (a *app) passwordCmd() *cobra.Command {
	var current, fresh string
	c := &cobra.Command{
		Use: "password", Short: "Change your own password; your other sessions end", Example: "  reeve session password\n  reeve session password --current-file old --new-file new", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			old, err := a.readSecret(current, "Current password")
			if err != nil {
				return err
			}
			next, err := a.readSecret(fresh, "New password")
			if err != nil {
				return err
			}
			o, n := old.Reveal(), next.Reveal()
			if _, err := call[none](c.ChangePassword(cmd.Context(), client.PasswordRequest{Current: &o, Password: &n})); err != nil {
				return err
			}
			a.say("your password is changed")
			return nil
		},
	}
	c.Flags().StringVar(&current, "current-file", "-", "file with the current password; - asks for it")
	c.Flags().StringVar(&fresh, "new-file", "-", "file with the new password; - asks for it")
	return c
}

func (a *app) userInviteCmd() *cobra.Command {
	return &cobra.Command{
		Use: "invite NAME", Short: "Make a one-time invitation with which a user sets their password",
		Long: `Make a one-time invitation: for the first password, or for another when the old one is lost. Whoever has it can set the password, once,
so hand it over in a way that reaches the user alone. The user runs reeve accept.`,
		Example: "  reeve user invite ada > ada.invitation", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			inv, err := call[client.CreatedInvitation](c.InviteUser(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(inv, func() {
				a.say("invitation for %s, good once until %s; it is shown once", args[0], when(&inv.ExpiresAt))
				_, _ = a.out.Write([]byte(inv.Secret + "\n"))
			})
		},
	}
}

func (a *app) acceptCmd() *cobra.Command {
	var invitation, password string
	c := &cobra.Command{
		Use: "accept", Short: "Set your password with an invitation", Args: exactArgs(),
		Long:    "Set your password with an invitation. It has at least 15 characters, or 8 if you have a second factor, and is hard to guess: a few words that do not belong together.",
		Example: "  reeve accept --invitation-file ada.invitation\n  reeve accept --invitation-file ada.invitation --password-file ada.password",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			inv, err := a.readSecret(invitation, "Invitation")
			if err != nil {
				return err
			}
			pw, err := a.readSecret(password, "New password")
			if err != nil {
				return err
			}
			i, p := inv.Reveal(), pw.Reveal()
			if _, err := call[none](c.AcceptInvitation(cmd.Context(), client.AcceptRequest{Invitation: &i, Password: &p}, anonymous)); err != nil {
				return err
			}
			a.say("your password is set; sign in with reeve login")
			return nil
		},
	}
	c.Flags().StringVar(&invitation, "invitation-file", "", "file with the invitation (required)")
	c.Flags().StringVar(&password, "password-file", "-", "file with the new password; - asks for it")
	_ = c.MarkFlagRequired("invitation-file")
	return c
}
