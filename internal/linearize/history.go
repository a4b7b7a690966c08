package linearize

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// verdict is what a client knows of an operation once its call has returned.
type verdict int

const (
	answered verdict = iota
	refused          // it had no effect and never will
	unknown          // it may have had its effect, or may have it at any later time
)

// verdictOf says what an error of a change leaves open. An error of any other kind is an
// answer.
func verdictOf(err error) verdict {
	switch reeve.KindOf(err) {
	case reeve.Unavailable, reeve.Sealed:
		return refused
	case reeve.OutcomeUnknown, reeve.Internal, "":
		if err != nil {
			return unknown
		}
	}
	return answered
}

// lost is the output of an operation whose outcome is unknown.
type lost struct{}

// history is what clients saw, by object. It is safe for concurrent use.
type history struct {
	began time.Time

	mu      sync.Mutex
	objects map[string]*object
	count   map[verdict]int
}

// object is one thing that must be linearizable by itself.
type object struct {
	key   string
	model *objectModel
	ops   []porcupine.Operation
	lost  int // operations whose outcome is unknown
}

func newHistory() *history {
	return &history{began: time.Now(), objects: map[string]*object{}, count: map[verdict]int{}}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// record notes one operation of a client, called at the given time and returned now.
func (h *history) record(client int, key string, model *objectModel, call int64, input, output any, v verdict) {
	at := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count[v]++
	op := porcupine.Operation{ClientId: client, Input: input, Call: call, Output: output, Return: at}
	switch v {
	case refused:
		return
	case unknown:
		op.Output, op.Return = lost{}, math.MaxInt64
	}
	o := h.objects[key]
	if o == nil {
		o = &object{key: key, model: model}
		h.objects[key] = o
	}
	if v == unknown {
		o.lost++
	}
	o.ops = append(o.ops, op)
}

// Violation is an object for which no order of the operations explains the answers.
type Violation struct {
	Object  string
	Ops     int
	Picture string // path of porcupine's page, "" if none was written
	// Undecided: the search was given up. Then nothing is proven, which must not happen.
	Undecided bool
}

func (v Violation) String() string {
	what := "is not linearizable"
	if v.Undecided {
		what = "could not be checked in time"
	}
	return fmt.Sprintf("%s %s: %d operations, picture %q", v.Object, what, v.Ops, v.Picture)
}

// maxLost is how many operations of unknown outcome an object gets before clients leave it
// alone: the search for an order doubles with each.
const maxLost = 3

// tired reports whether an object has had enough of them.
func (h *history) tired(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.objects[key]
	return o != nil && o.lost >= maxLost
}

const checkLimit = 10 * time.Second // for one object

// check searches an order for each object, and draws those that have none into dir.
func (h *history) check(dir string) ([]Violation, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	objects := make([]*object, 0, len(h.objects))
	for _, o := range h.objects {
		objects = append(objects, o)
	}
	slices.SortFunc(objects, func(a, b *object) int { return cmp.Compare(a.key, b.key) })
	var found []Violation
	for _, o := range objects {
		result := porcupine.CheckOperationsTimeout(o.model.Model, o.ops, checkLimit)
		if result == porcupine.Ok {
			continue
		}
		v := Violation{Object: o.key, Ops: len(o.ops), Undecided: result == porcupine.Unknown}
		if dir != "" {
			v.Picture = filepath.Join(dir, strings.ReplaceAll(o.key, "/", "-")+".html")
			_, info := porcupine.CheckOperationsVerbose(o.model.Model, o.ops, checkLimit)
			if err := porcupine.VisualizePath(o.model.Model, info, v.Picture); err != nil {
				return nil, fmt.Errorf("linearize: %w", err)
			}
		}
		found = append(found, v)
	}
	return found, nil
}

// describe is a model's DescribeOperation.
func describe(input, output any) string {
	if _, ok := output.(lost); ok {
		return fmt.Sprintf("%+v → ?", input)
	}
	return fmt.Sprintf("%+v → %+v", input, output)
}

type objectModel struct{ porcupine.Model }

// model makes a porcupine model from a typed step. out is nil for a lost operation: the
// step then says what the operation does to the state when it takes effect.
func model[S comparable, I, O any](step func(s S, in I, out *O) (bool, S)) *objectModel {
	return &objectModel{porcupine.Model{
		Init: func() any { var s S; return s },
		Step: func(state, input, output any) (bool, any) {
			var out *O
			if o, ok := output.(O); ok {
				out = &o
			}
			return step2(step(state.(S), input.(I), out))
		},
		DescribeOperation: describe,
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}}
}

func step2[S any](ok bool, s S) (bool, any) { return ok, s }
