package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// row is one line of the table: some work, what it is compared with, and how well it must do.
type row struct {
	name string // short, for --rows; related rows begin alike
	work string // what is done, for people
	unit string // of both figures: "updates/s", "ms", "MB"
	more bool   // more of the unit is better

	// require is what must be reached: Reeve's figure divided by the floor's, or, in a row without a floor, Reeve's
	// figure itself. At least that if more is better, else at most. 0: nothing is required, the row is for orientation.
	require float64

	// total makes one figure of all samples of all runs; nil: the median of the medians of the runs.
	total func(runs [][]float64) float64

	prepare func(ctx context.Context, e *env) (*sides, error)
}

// sides are the two things compared, ready to be measured. Each call of floor or reeve is one run, and returns one
// or more samples in the row's unit.
type sides struct {
	floor func(ctx context.Context) ([]float64, error) // nil: no floor
	reeve func(ctx context.Context) ([]float64, error)
	close func() error  // may be nil
	note  func() string // may be nil: what a reader should know about this run
}

// runsPerRow is how often each side is measured, unless told otherwise.
const runsPerRow = 5

// env is what rows need of the program.
type env struct {
	quick  bool         // one short run: prove that the row works
	runs   int          // of each side, if not quick
	bin    string       // directory of the programs of `make build`
	log    *slog.Logger // what clusters log
	dir    string       // removed at the end
	stderr io.Writer
	atEnd  []func() error // in reverse order, after all rows
}

func newEnv(o options, log *slog.Logger, stderr io.Writer) (*env, error) {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "run-"); err != nil {
		return nil, err
	}
	return &env{quick: o.quick, runs: o.runs, bin: o.bin, log: log, dir: dir, stderr: stderr}, nil
}

func (e *env) close() (err error) {
	for i := len(e.atEnd) - 1; i >= 0; i-- {
		err = errors.Join(err, e.atEnd[i]())
	}
	return errors.Join(err, os.RemoveAll(e.dir))
}

// tempDir makes a directory for one purpose.
func (e *env) tempDir(purpose string) (string, error) { return os.MkdirTemp(e.dir, purpose+"-") }

// span is how long a run lasts that counts what gets done.
func (e *env) span() time.Duration {
	if e.quick {
		return 300 * time.Millisecond
	}
	return 3 * time.Second
}

// few is how many repetitions a run has that times single things: n, or in a quick run at most 2.
func (e *env) few(n int) int {
	if e.quick {
		return min(n, 2)
	}
	return n
}

func (e *env) progress(format string, args ...any) {
	_, _ = fmt.Fprintf(e.stderr, format+"\n", args...)
}

// measure runs both sides in turn.
func (e *env) measure(ctx context.Context, r row) (_ result, err error) {
	e.progress("%s: %s", r.name, r.work)
	s, err := r.prepare(ctx, e)
	if err != nil {
		return result{}, err
	}
	if s.close != nil {
		defer func() { err = errors.Join(err, s.close()) }()
	}
	runs := e.runs
	if e.quick {
		runs = 1
	}
	var floor, reeve [][]float64
	for i := range runs {
		if s.floor != nil {
			samples, err := s.floor(ctx)
			if err != nil {
				return result{}, fmt.Errorf("floor: %w", err)
			}
			floor = append(floor, samples)
			e.progress("  run %d of %d  floor  %s %s", i+1, runs, number(median(samples)), r.unit)
		}
		samples, err := s.reeve(ctx)
		if err != nil {
			return result{}, fmt.Errorf("reeve: %w", err)
		}
		reeve = append(reeve, samples)
		e.progress("  run %d of %d  reeve  %s %s", i+1, runs, number(median(samples)), r.unit)
	}
	res := r.judge(floor, reeve)
	if s.note != nil {
		res.Note = s.note()
	}
	return res, nil
}
