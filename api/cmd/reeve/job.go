package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

func (a *app) jobCmd() *cobra.Command {
	var account, state string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List jobs, the newest first", Example: "  reeve job list --state dead\n  reeve job list --account pam_alice@web01", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p := &client.ListJobsParams{Limit: &limit}
			if account != "" {
				p.Account = &account
			}
			if state != "" {
				s := client.ListJobsParamsState(state)
				p.State = &s
			}
			page, err := call[client.JobPage](c.ListJobs(cmd.Context(), p))
			if err != nil {
				return err
			}
			return a.show(page.Items, func() {
				var rows [][]any
				for _, j := range page.Items {
					what := ""
					if j.Error != nil {
						what = j.Error.Class
					}
					rows = append(rows, []any{j.Id, j.Operation, string(j.State), str(j.Account), str(j.Asset), legacyMark(j.Legacy), j.Attempt, what, when(&j.CreatedAt)})
				}
				a.table([]any{"id", "operation", "state", "account", "asset", "protection", "attempt", "error", "created"}, rows)
			})
		},
	}
	list.Flags().StringVar(&account, "account", "", "only jobs of this account")
	list.Flags().StringVar(&state, "state", "", "only jobs in this state: queued, leased, done, failed, dead, cancelled, uncertain")
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	one := func(use, short, example string, do func(context.Context, *api, string) (client.Job, error)) *cobra.Command {
		return &cobra.Command{
			Use: use + " ID", Short: short, Example: "  " + example, Args: exactArgs("ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := a.connect()
				if err != nil {
					return err
				}
				j, err := do(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				return a.show(j, func() { a.describeJob(j) })
			},
		}
	}
	show := one("show", "Show a job", "reeve job show job_06f2…", func(ctx context.Context, c *api, id string) (client.Job, error) {
		return call[client.Job](c.GetJob(ctx, id))
	})
	cancel := one("cancel", "Cancel a job that waits, or ask the agent to stop one that runs", "reeve job cancel job_06f2…", func(ctx context.Context, c *api, id string) (client.Job, error) {
		return call[client.Job](c.CancelJob(ctx, id, &client.CancelJobParams{IdempotencyKey: newKey()}))
	})
	retry := one("retry", "Queue a dead job again", "reeve job retry job_06f2…", func(ctx context.Context, c *api, id string) (client.Job, error) {
		return call[client.Job](c.RetryJob(ctx, id, &client.RetryJobParams{IdempotencyKey: newKey()}))
	})
	var follow bool
	logs := &cobra.Command{
		Use: "logs ID", Short: "Print the log of a job; with -f live, until it ends", Example: "  reeve job logs -f job_06f2…", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			print := a.linePrinter(a.out, "")
			if a.output == "json" {
				print = func(raw []byte) { _, _ = fmt.Fprintln(a.out, string(raw)) }
			}
			if follow {
				return a.followJob(cmd.Context(), c, args[0], print, a.progress(""))
			}
			_, _, err = streamLog(cmd.Context(), c, args[0], false, "", print)
			return err
		},
	}
	logs.Flags().BoolVarP(&follow, "follow", "f", false, "follow it live until the job ends; fails if the job does")
	return group("job", "See, follow, cancel and retry jobs", "  reeve job list\n  reeve job logs -f job_06f2…", list, show, logs, cancel, retry)
}

func (a *app) describeJob(j client.Job) {
	kv := []string{"job", j.Id, "operation", j.Operation, "state", string(j.State), "outcome", str(j.Outcome), "account", str(j.Account), "asset", str(j.Asset),
		"protection", legacyMark(j.Legacy), "site", j.Site, "connector", j.Connector, "class", j.Class, "attempt", fmt.Sprint(j.Attempt), "agent", str(j.Agent), "owner", str(j.Owner),
		"created", when(&j.CreatedAt), "not before", when(j.NotBefore), "deadline", when(j.Deadline), "finished", when(j.FinishedAt)}
	if e := j.Error; e != nil {
		kv = append(kv, "error", e.Message+" ["+e.Class+"]", "to do", str(e.Fix))
	}
	a.pairs(kv...)
}

// logLine is one line of a job's log.
type logLine struct {
	Time    time.Time `json:"time"`
	Level   string    `json:"level"`
	Step    string    `json:"step"`
	State   string    `json:"state"`
	Message string    `json:"message"`
}

// progress prints log lines on standard error, where they are not what was asked for;
// with -o json nowhere.
func (a *app) progress(prefix string) func(raw []byte) {
	if a.output == "json" {
		return func([]byte) {}
	}
	return a.linePrinter(a.err, prefix)
}

// linePrinter prints log lines for people, as they come. Safe for several jobs at once.
func (a *app) linePrinter(w io.Writer, prefix string) func(raw []byte) {
	return func(raw []byte) {
		a.printing.Lock()
		defer a.printing.Unlock()
		var l logLine
		if json.Unmarshal(raw, &l) != nil {
			_, _ = fmt.Fprintln(w, string(raw))
			return
		}
		mark := map[string]string{"started": "·", "done": "✓", "skipped": "=", "failed": "✗"}[l.State]
		if mark == "" {
			mark = " "
		}
		if prefix != "" {
			_, _ = fmt.Fprintf(w, "%-20s ", prefix)
		}
		what := l.Message
		if l.Step != "" {
			what = strings.TrimRight(fmt.Sprintf("%-12s %s", l.Step, l.Message), " ")
		}
		what = strings.ReplaceAll(what, "\n", `\n`) // one line of the log is one line here
		_, _ = fmt.Fprintf(w, "%s %s %s\n", l.Time.Local().Format("15:04:05.000"), mark, what)
	}
}

// followJob streams the log until the job ends, through dropped connections and
// changes of leader; while it is silent, tell is given what it waits for. It fails if
// the job does.
func (a *app) followJob(ctx context.Context, c *api, job string, print, tell func([]byte)) error {
	heard := make(chan struct{}, 1)
	waits, stop := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() { tellWaits(waits, c, job, heard, tell) })
	defer telling.Wait()
	defer stop()
	line := func(raw []byte) {
		select {
		case heard <- struct{}{}:
		default:
		}
		print(raw)
	}
	last := ""
	for fails := 0; ; {
		end, at, err := streamLog(ctx, c, job, true, last, line)
		if at != last {
			fails = 0
		}
		last = at
		switch {
		case end != nil:
			return jobError(*end)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			refused, ok := errors.AsType[*refusal](err)
			if fails++; fails > 20 || ok && refused.final() {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// pulse is how long a job may be silent before people are told why.
const pulse = 2 * time.Second

// tellWaits says what a silent job waits for, once for each thing.
func tellWaits(ctx context.Context, c *api, job string, heard <-chan struct{}, tell func([]byte)) {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
			continue
		case <-time.After(pulse):
		}
		j, err := call[client.Job](c.GetJob(ctx, job))
		why := ""
		switch {
		case err != nil:
		case j.State == client.JobStateLeased:
			why = "agent " + str(j.Agent) + " is still at work"
		case j.State != client.JobStateQueued:
		case j.NotBefore != nil && time.Until(*j.NotBefore) > 0:
			why = fmt.Sprintf("attempt %d begins at %s", j.Attempt+1, when(j.NotBefore))
		default:
			why = "waits for an agent of site " + j.Site
		}
		if why == "" || why == said {
			continue
		}
		said = why
		if raw, err := json.Marshal(logLine{Time: time.Now(), Message: why}); err == nil {
			tell(raw)
		}
	}
}

func jobError(j client.Job) error {
	if j.State == client.JobStateDone {
		return nil
	}
	msg := fmt.Sprintf("job %s (%s) is %s", j.Id, j.Operation, j.State)
	if j.Error != nil {
		msg += fmt.Sprintf(": %s [%s]", j.Error.Message, j.Error.Class)
		if j.Error.Fix != nil {
			msg += "\n  to do: " + *j.Error.Fix
		}
	}
	return errors.New(msg)
}

// streamLog reads one stream of server-sent events. It returns the job if it ended,
// and the id of the last event seen, from which to go on.
func streamLog(ctx context.Context, c *api, job string, follow bool, last string, print func([]byte)) (*client.Job, string, error) {
	p := &client.GetJobLogParams{Follow: &follow}
	if last != "" {
		p.LastEventID = &last
	}
	resp, err := c.GetJobLog(ctx, job, p)
	if err != nil {
		return nil, last, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, last, problem(resp)
	}
	var event, data string
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		field, v, _ := strings.Cut(sc.Text(), ":")
		v = strings.TrimPrefix(v, " ")
		switch field {
		case "event":
			event = v
		case "id":
			last = v
		case "data":
			data = v
		case "":
			switch event {
			case "log":
				print([]byte(data))
			case "gap":
				print(fmt.Appendf(nil, `{"step":"log","message":"%s bytes were left out here"}`, data))
			case "end":
				var j client.Job
				if err := json.Unmarshal([]byte(data), &j); err != nil {
					return nil, last, fmt.Errorf("the end of the log cannot be read: %w", err)
				}
				return &j, last, nil
			}
			event, data = "", ""
		}
	}
	if err := sc.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, last, err
	}
	return nil, last, nil
}

// settled are the states in which nothing more happens by itself.
var settled = map[string]bool{"failed": true, "active": true, "disabled": true, "partial": true, "removed": true, "scheduled": true, "planned": true}

// watchBatch follows every account of a batch until all are settled, and fails unless
// all succeeded.
func (a *app) watchBatch(ctx context.Context, c *api, b client.Batch, dryRun bool) error {
	var wg sync.WaitGroup
	final := make([]client.Account, len(b.Accounts))
	errs := make([]error, len(b.Accounts))
	for i, acc := range b.Accounts {
		prefix := "" // one account needs no name in front of every line
		if len(b.Accounts) > 1 {
			prefix = acc.Name + "@" + acc.Asset
		}
		wg.Go(func() { final[i], errs[i] = a.watchAccount(ctx, c, acc, a.progress(prefix)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	failed := 0
	for _, acc := range final {
		if acc.LastError != nil || acc.State == "partial" || acc.State == "failed" {
			failed++
		}
	}
	err := a.show(final, func() {
		for _, acc := range final {
			mark := "✓"
			if acc.LastError != nil || acc.State == "partial" || acc.State == "failed" {
				mark = "✗"
			}
			a.say("%s %s@%s is %s", mark, acc.Name, acc.Asset, condition(acc))
			if e := acc.LastError; e != nil {
				a.say("    %s [%s]", e.Message, e.Class)
				if e.Fix != nil {
					a.say("    to do: %s", *e.Fix)
				}
			}
			if dryRun && acc.Plans != nil {
				for _, p := range *acc.Plans {
					if p.Action == "provision" {
						a.describePlan(p)
					}
				}
			}
		}
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d accounts did not succeed", failed, len(final))
	}
	return err
}

// watchAccount follows the jobs of one account, one after the other, until it is settled.
func (a *app) watchAccount(ctx context.Context, c *api, acc client.Account, print func([]byte)) (client.Account, error) {
	seen := ""
	for {
		if j := str(acc.Job); j != "" && j != seen {
			seen = j
			_ = a.followJob(ctx, c, j, print, print) // a failed job shows on the account
		}
		next, err := call[client.Account](c.GetAccount(ctx, acc.Id))
		if err != nil {
			return acc, err
		}
		acc = next
		switch {
		case str(acc.Job) != "" && str(acc.Job) != seen: // which may be over already
			continue
		case settled[acc.State]:
			return acc, nil
		}
		select {
		case <-ctx.Done():
			return acc, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
