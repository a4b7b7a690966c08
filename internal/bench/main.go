// Command bench measures Reeve against floors in the same run: bare Raft, bare drivers, bare SSH. `make bench` runs it.
// It prints one table; a row that misses its mark says so. It owns no behaviour of the product, and nothing imports it.
//
// Every row stands in a file of its own, named in rows.go. A row measures its floor and Reeve in turn, five times each,
// and compares the medians, so that what else the machine does meets both.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	rows    []string // empty: all
	quick   bool
	runs    int
	json    bool
	strict  bool
	verbose bool
	dir     string
	bin     string
	write   string
	svg     string
	from    string
	profile string
}

var errUsage = errors.New("wrong usage")

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	var list, format string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&list, "rows", "", "comma-separated `names` of the rows to measure, or beginnings of names; default: all")
	f.BoolVar(&o.quick, "quick", false, "one short run of each row: shows that it works, not how fast it is")
	f.IntVar(&o.runs, "runs", runsPerRow, "how often each side is measured; the marks are meant for the default")
	f.StringVar(&format, "o", "table", "`format` of the result: table or json")
	f.BoolVar(&o.strict, "strict", false, "exit with status 1 if a row misses its mark")
	f.BoolVar(&o.verbose, "v", false, "what the clusters log goes to standard error")
	f.StringVar(&o.dir, "dir", ".bench", "`directory` for data, on the disk to be measured")
	f.StringVar(&o.bin, "bin", "bin", "`directory` of the programs of `make build`")
	f.StringVar(&o.write, "write", "", "put the table into this markdown `file`, between its markers")
	f.StringVar(&o.svg, "svg", "", "draw the result into this SVG `file`")
	f.StringVar(&o.from, "from", "", "measure nothing; take the result of -o json from this `file`")
	f.StringVar(&o.profile, "profile", "", "profile instead: write CPU, allocation, block and mutex profiles to this `directory` and print their tops")
	if err := f.Parse(args); err != nil {
		return errors.Join(errUsage, err)
	}
	if f.NArg() > 0 || o.runs < 1 || (format != "table" && format != "json") {
		f.Usage()
		return errUsage
	}
	o.json = format == "json"
	o.rows = strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
	return run(ctx, o, stdout, stderr)
}

func run(ctx context.Context, o options, stdout, stderr io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	if o.profile != "" {
		return profile(ctx, o, log, stdout, stderr)
	}
	rep, err := obtain(ctx, o, log, stderr)
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(rep)
	} else {
		err = rep.print(stdout)
	}
	if err == nil && o.svg != "" {
		err = os.WriteFile(o.svg, rep.picture(), 0o644) //nolint:gosec // a picture for everybody
	}
	if err == nil && o.write != "" {
		err = rep.document(o.write)
	}
	if err == nil && o.strict && rep.missed() > 0 {
		err = fmt.Errorf("%d rows missed their mark", rep.missed())
	}
	return err
}

// obtain measures, or reads what was measured before.
func obtain(ctx context.Context, o options, log *slog.Logger, stderr io.Writer) (*report, error) {
	if o.from != "" {
		raw, err := os.ReadFile(o.from)
		if err != nil {
			return nil, err
		}
		rep := &report{}
		return rep, json.Unmarshal(raw, rep)
	}
	chosen, err := choose(o.rows)
	if err != nil {
		return nil, err
	}
	e, err := newEnv(o, log, stderr)
	if err != nil {
		return nil, err
	}
	rep := &report{Machine: describe(o.dir), Runs: o.runs, Quick: o.quick}
	began := time.Now()
	for _, r := range chosen {
		res, err := e.measure(ctx, r)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("row %s: %w", r.name, err), e.close())
		}
		rep.Results = append(rep.Results, res)
	}
	rep.Took = time.Since(began).Round(time.Second).String()
	return rep, e.close()
}

// choose returns the rows whose name is, or begins with, one of the names.
func choose(names []string) ([]row, error) {
	if len(names) == 0 {
		return rows(), nil
	}
	var chosen []row
	used := map[string]bool{}
	for _, r := range rows() {
		for _, n := range names {
			if strings.HasPrefix(r.name, n) {
				used[n] = true
				if !slices.ContainsFunc(chosen, func(c row) bool { return c.name == r.name }) {
					chosen = append(chosen, r)
				}
			}
		}
	}
	for _, n := range names {
		if !used[n] {
			var all []string
			for _, r := range rows() {
				all = append(all, r.name)
			}
			return nil, fmt.Errorf("no row %q; there are %s", n, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}
