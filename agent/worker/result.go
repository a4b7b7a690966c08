package worker

import (
	"context"
	"errors"
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

func done() *agentv1.Result { return &agentv1.Result{Outcome: string(reeve.Done)} }

// notDone is a failure proven to have had no effect.
func notDone(class reeve.Class, message, fix string) *agentv1.Result {
	return &agentv1.Result{Outcome: string(reeve.NotDone), Class: string(class), Message: message, Fix: fix}
}

// unknown is a failure that may have had an effect, or may still have one.
func unknown(class reeve.Class, message, fix string) *agentv1.Result {
	return &agentv1.Result{Outcome: string(reeve.OutcomeUncertain), Class: string(class), Message: message, Fix: fix}
}

// failure is what err comes to when the target was not told to change anything; if it
// was, the outcome is unknown.
func (r *run) failure(err error) *agentv1.Result {
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok {
		e = sdk.Errorf(sdk.ClassInternal, "the agent failed: %s", reeve.CodeOf(err)).Wrap(err)
		r.w.log.Error("job failed inside the agent", "job", r.job.Id, "error", err)
	}
	res := notDone(e.Class, e.Message, e.Fix)
	if r.touched {
		res.Outcome = string(reeve.OutcomeUncertain)
	}
	res.Details = maps.Clone(e.Details)
	if left := res.Details["residue"]; left != "" {
		res.Residue = strings.Split(left, "\n")
	}
	return res
}

// interrupted is failure for a context that ended: why it did decides the class.
func (r *run) interrupted(ctx context.Context, err error) *agentv1.Result {
	cause := context.Cause(ctx)
	if cause == nil {
		return r.failure(err)
	}
	class, fix := reeve.ClassCancelled, ""
	switch {
	case errors.Is(cause, errOverrun):
		class, fix = reeve.ClassUnreachable, "look at the target and at its network: it did not answer in the time the job had"
	case !errors.Is(cause, errCancelled): // the lease was lost, or the agent stops
		class = reeve.ClassInternal
	}
	message := cause.Error()
	if errors.Is(cause, context.Canceled) {
		class, message = reeve.ClassBusy, "the agent was stopped" // not the job's fault: internal would count against it
	}
	if r.touched {
		return unknown(reeve.ClassUnknownOutcome, message+" while the target was being changed", fix)
	}
	return notDone(class, message+" before anything was changed", fix)
}

// clean removes the job's secrets from everything that is reported. Connectors must
// not put them there; this is for the one that does. In what has structure, where a
// word may be the name of something, only secrets of decent length are looked for.
func (r *run) clean(res *agentv1.Result) {
	for _, p := range res.Plans {
		if !r.touched && r.findsSecret(p) { // else looked at before they were kept; what has happened must be told
			proto.Reset(res)
			proto.Merge(res, secretInPlan())
			return
		}
	}
	res.Message, res.Fix = r.redact.Redact(res.Message), r.redact.Redact(res.Fix)
	long := r.redact.Long()
	outcome, class, observation := res.Outcome, res.Class, res.Observation // words of our own
	plans := res.Plans                                                     // which hold none
	res.Observation, res.Plans = nil, nil
	walk(res.ProtoReflect(), long.Redact)
	res.Outcome, res.Class, res.Observation, res.Plans = outcome, class, observation, plans
}

func secretInPlan() *agentv1.Result {
	return notDone(reeve.ClassInternal, "the connector put a secret into its plan", "report this to the author of the connector")
}

func (r *run) findsSecret(m proto.Message) bool {
	found := false
	walk(m.ProtoReflect(), func(s string) string {
		found = found || r.redact.Finds(s)
		return s
	})
	return found
}

// walk replaces every string in m by what edit makes of it.
func walk(m protoreflect.Message, edit func(string) string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			walkMap(f, v.Map(), edit)
		case f.IsList():
			l := v.List()
			for i := range l.Len() {
				if f.Kind() == protoreflect.StringKind {
					l.Set(i, protoreflect.ValueOfString(edit(l.Get(i).String())))
				} else if f.Kind() == protoreflect.MessageKind {
					walk(l.Get(i).Message(), edit)
				}
			}
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(edit(v.String())))
		case f.Kind() == protoreflect.MessageKind:
			walk(v.Message(), edit)
		}
		return true
	})
}

func walkMap(f protoreflect.FieldDescriptor, m protoreflect.Map, edit func(string) string) {
	if f.MapValue().Kind() != protoreflect.StringKind {
		return
	}
	type pair struct{ key, value string }
	var pairs []pair
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		pairs = append(pairs, pair{k.String(), v.String()})
		return true
	})
	for _, p := range pairs {
		m.Clear(protoreflect.ValueOfString(p.key).MapKey())
		m.Set(protoreflect.ValueOfString(edit(p.key)).MapKey(), protoreflect.ValueOfString(edit(p.value)))
	}
}

// maxText is what is left of a text in a result that was too large, in bytes.
const maxText = 4 << 10

// shrink takes out of a result what makes it too large to be reported. What is known
// about a change stays; a question whose answer is too large has none.
func shrink(j *agentv1.Job, res *agentv1.Result) {
	small := &agentv1.Result{Outcome: res.Outcome, Class: res.Class, Message: res.Message[:min(len(res.Message), maxText)],
		Observation: res.Observation, StartedAt: res.StartedAt, FinishedAt: res.FinishedAt}
	if changes(j.Work.GetOperation()) {
		small.Plans = res.Plans // checked before anything was done by them
	}
	if res.Outcome == string(reeve.Done) && !changes(j.Work.GetOperation()) {
		small.Outcome, small.Class = string(reeve.NotDone), string(reeve.ClassInternal)
		small.Message = "the connector's answer is too large to be reported"
	}
	small.Message = strings.ToValidUTF8(small.Message, "")
	proto.Reset(res)
	proto.Merge(res, small)
}
