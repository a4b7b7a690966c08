package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/selftest"
)

// selftestFlags are the flags of "connector selftest".
type selftestFlags struct {
	byHand
	asset, prefix, role, transcript, compare string
	params                                   map[string]string
}

func (a *app) connectorSelftestCmd() *cobra.Command {
	f := &selftestFlags{byHand: byHand{app: a}}
	cmd := &cobra.Command{
		Use: "selftest [BINARY]", Short: "Live the life of a throw-away account on a real target, and write it down",
		Long: `Makes an account with a name nobody has, changes, disables, enables and removes it, logs in as it between the steps,
and compares what the target does with what the connector promises. With --asset a cluster does it on one of its
assets, by ordinary jobs that are in the audit trail like any other; with BINARY and --target it is done from here.

What was planned, done and answered is written to a transcript without secrets, one JSON object a line, for whoever
maintains the connector: it shows how your target differs from those the connector was proven on. --compare prints
how it differs from another transcript, such as the one that comes with the connector.

The account is removed also after a step that failed and after Ctrl-C; if it cannot be, what is left is said, and how
to remove it. It expires after a day. Ends with status 1 if something differs.

` + targetHelp,
		Example: `  reeve connector selftest --asset web01 --transcript web01.jsonl
  reeve connector selftest --asset shop --role mysql-db-ro --param Database=shop --compare docs/connectors/selftest/mysql.jsonl
  reeve connector selftest bin/connectors/connector-ssh --target web01.yaml --transcript web01.jsonl`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usagef("%s takes one BINARY at most, but %d argument(s) are given; see %s --help", cmd.CommandPath(), len(args), cmd.CommandPath())
			case f.asset != "" && (len(args) > 0 || f.targetPath != ""):
				return usagef("--asset is for a cluster, BINARY and --target are for work without one; give one or the other")
			case f.asset == "" && len(args) == 0:
				return usagef("give --asset with the name of an asset of the cluster, or BINARY and --target; see %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			expected, err := readTranscript("--compare", f.compare)
			if err != nil {
				return err
			}
			if f.role == "" && expected != nil {
				f.role = expected.Header.Role
			}
			j, end, err := f.journal()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			if f.asset != "" {
				err = f.throughCluster(cmd.Context(), j)
			} else {
				err = f.byConnector(cmd.Context(), j, args[0])
			}
			if len(j.Entries) == 0 {
				return err
			}
			return f.verdict(j, expected, err)
		},
	}
	f.flags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.asset, "asset", "", "asset of the cluster, instead of BINARY and --target")
	fl.StringVar(&f.prefix, "prefix", "reevetest", "beginning of the account's name")
	fl.StringVar(&f.role, "role", "", "role of the account (that of --compare, or the first that needs no parameter and carries no warning)")
	fl.StringToStringVar(&f.params, "param", nil, "parameter of the role, NAME=VALUE; may be repeated")
	fl.StringVar(&f.transcript, "transcript", "", "new file for the transcript")
	fl.StringVar(&f.compare, "compare", "", "transcript to compare with")
	return cmd
}

// journal opens the transcript's file, which must be new, and shows the steps as they come.
func (f *selftestFlags) journal() (*selftest.Journal, func() error, error) {
	j := &selftest.Journal{Said: func(e selftest.Entry) {
		if f.output == "table" {
			f.say("%-7s %s: %s", map[bool]string{true: "ok", false: "DIFFERS"}[e.OK], e.Step, e.Got)
			if e.Error != nil {
				f.say("        %s", strings.ReplaceAll(e.Error.Message, "\n", "\n        "))
				if e.Error.Fix != "" {
					f.say("        to do: %s", e.Error.Fix)
				}
			}
		}
	}}
	if f.transcript == "" {
		return j, func() error { return nil }, nil
	}
	file, err := createNamed("--transcript", f.transcript)
	if err != nil {
		return nil, nil, err
	}
	j.To = file
	return j, func() error {
		err := file.Close()
		if len(j.Entries) == 0 { // nothing was tried, so there is nothing to keep
			err = errors.Join(err, os.Remove(file.Name()))
		}
		return err
	}, nil
}

// byConnector lives the life with a connector, without a cluster.
func (f *selftestFlags) byConnector(ctx context.Context, j *selftest.Journal, binary string) error {
	c, stop, d, t, err := f.open(ctx, binary, true)
	if err != nil {
		return err
	}
	defer stop()
	if f.role == "" {
		f.role = selftest.DefaultRole(d.Roles)
	}
	role, err := roleOf(d, f.role)
	if err != nil {
		return err
	}
	life := &selftest.Life{Journal: j, Client: c, Description: d, Target: t, Role: role, Params: f.params, Prefix: f.prefix, Timeout: f.timeout}
	err = asReeveError(life.Live(ctx))
	if left, ok := errors.AsType[*selftest.LeftError](err); ok {
		f.say("what is left can be removed with:\n  reeve connector run %s deprovision --target %s --account %s --account-id %s",
			binary, f.targetPath, left.Account, left.AccountID)
	}
	return err
}

// verdict sums a life up, and compares it with the one that was expected, if there is one.
func (f *selftestFlags) verdict(j *selftest.Journal, expected *selftest.Transcript, failed error) error {
	var differences []selftest.Difference
	if expected != nil {
		differences = selftest.Compare(expected, j.Transcript())
	}
	shown := struct {
		selftest.Header
		Steps       []selftest.Entry      `json:"steps"`
		Differ      int                   `json:"differ"`
		Differences []selftest.Difference `json:"differences,omitempty"`
	}{j.Header, j.Entries, j.Differ, differences}
	err := f.show(shown, func() {
		_, _ = fmt.Fprintf(f.out, "connector %s %s: %d steps, %d differ; account %s\n",
			j.Header.Connector, j.Header.ConnectorVersion, len(j.Entries), j.Differ, j.Header.Account)
		if expected != nil {
			f.showDifferences(f.compare, expected, differences)
		}
	})
	if j.Differ > 0 {
		err = errors.Join(err, fmt.Errorf("%d steps differ from what the connector promises%s", j.Differ, map[bool]string{true: "; the transcript says how"}[f.transcript != ""]))
	}
	if len(differences) > 0 {
		err = errors.Join(err, differs(f.compare, differences))
	}
	return errors.Join(failed, err)
}

func differs(from string, differences []selftest.Difference) error {
	return fmt.Errorf("it differs from %s in %d things", from, len(differences))
}

// showDifferences prints what only the expected life has (-), and what only this one (+).
func (a *app) showDifferences(path string, expected *selftest.Transcript, differences []selftest.Difference) {
	if len(differences) == 0 {
		_, _ = fmt.Fprintf(a.out, "as in %s\n", path)
		return
	}
	_, _ = fmt.Fprintf(a.out, "\n- %s, of %s with connector %s %s\n+ this one\n", path, expected.Header.Began.Format(time.DateOnly),
		expected.Header.Connector, expected.Header.ConnectorVersion)
	for _, d := range differences {
		_, _ = fmt.Fprintln(a.out, d)
	}
}

// readTranscript reads a transcript that a flag or an argument names; none for "".
func readTranscript(what, path string) (*selftest.Transcript, error) {
	if path == "" {
		return nil, nil
	}
	file, err := openNamed(what, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	t, err := selftest.Read(file)
	if err != nil {
		return nil, usagef("%s: %s is no transcript of a self-test: %w", what, path, err)
	}
	return t, nil
}

func (a *app) connectorCompareCmd() *cobra.Command {
	return &cobra.Command{
		Use: "compare EXPECTED TRANSCRIPT", Short: "Compare two transcripts of self-tests",
		Long: `Prints in what the second life differs from the first: results, error classes, plans, what was done of them, verdicts
and facts. Names, ids, times, addresses, versions and numbers are no difference. Ends with status 1 if there is one.`,
		Example: "  reeve connector compare docs/connectors/selftest/mssql.jsonl theirs.jsonl", Args: exactArgs("EXPECTED", "TRANSCRIPT"),
		RunE: func(_ *cobra.Command, args []string) error {
			expected, err := readTranscript("EXPECTED", args[0])
			if err != nil {
				return err
			}
			got, err := readTranscript("TRANSCRIPT", args[1])
			if err != nil {
				return err
			}
			differences := selftest.Compare(expected, got)
			if differences == nil {
				differences = []selftest.Difference{}
			}
			err = a.show(differences, func() { a.showDifferences(args[0], expected, differences) })
			if len(differences) > 0 {
				err = errors.Join(err, differs(args[0], differences))
			}
			return err
		},
	}
}
