package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/redact/redacttest"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// logWriter is an agent's side of one attempt's log.
type logWriter struct {
	a        *testAgent
	job      *agentv1.Job
	sequence uint64
	offset   uint64
}

func (w *logWriter) chunk(data string, last bool) *agentv1.LogChunk {
	w.sequence++
	c := &agentv1.LogChunk{Job: w.job.GetId(), Attempt: w.job.GetAttempt(), Fence: w.job.GetFence(),
		Sequence: w.sequence, Offset: w.offset, Data: []byte(data), Last: last}
	w.offset += uint64(len(data))
	return c
}

func (w *logWriter) send(chunks ...*agentv1.LogChunk) *agentv1.StreamLogsResponse {
	w.a.r.t.Helper()
	acks, err := w.a.r.broker.AppendLog(context.Background(), w.a.id, chunks...)
	if err != nil {
		w.a.r.t.Fatalf("append: %v", err)
	}
	return acks[len(acks)-1]
}

// read collects the log from a position on until it ends, and checks that every
// attempt is contiguous: data and gaps follow one another without a hole.
func (r *rig) read(id reeve.JobID, from LogPosition) (text string, gaps uint64) {
	r.t.Helper()
	at := from
	for e, err := range r.broker.TailLog(context.Background(), id, from) {
		if err != nil {
			r.t.Fatalf("tail: %v", err)
		}
		if e.Position.Attempt != at.Attempt {
			at = LogPosition{Attempt: e.Position.Attempt}
		}
		if e.Position.Offset != at.Offset+uint64(len(e.Data))+e.Gap {
			r.t.Fatalf("a hole before %s: the last was %s, data %d, gap %d", e.Position, at, len(e.Data), e.Gap)
		}
		at = e.Position
		text += string(e.Data)
		gaps += e.Gap
	}
	return text, gaps
}

func TestLogIsFollowedLiveThroughAttempts_J5(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		var text string
		over := make(chan struct{})
		go func() {
			defer close(over)
			text, _ = r.read(j.ID, LogPosition{})
		}()
		w := &logWriter{a: a, job: a.takeOne()}
		one, two := w.chunk("1a\n", false), w.chunk("1b\n", false)
		if ack := w.send(two); ack.GetSequence() != 0 || ack.GetRefused() {
			t.Fatalf("a chunk that came too early: %v", ack)
		}
		if ack := w.send(one, two, one); ack.GetSequence() != 2 {
			t.Fatalf("ack %v", ack)
		}
		a.report(w.job, reeve.NotDone, reeve.ClassBusy)
		time.Sleep(time.Second)
		w2 := &logWriter{a: a, job: a.takeOne()}
		if ack := w.send(w.chunk("late\n", true)); !ack.GetRefused() {
			t.Fatalf("log under a stale fence: %v", ack)
		}
		w2.send(w2.chunk("2a\n", false))
		a.report(w2.job, reeve.Done, "")
		synctest.Wait()
		w2.send(w2.chunk("2b\n", true)) // the outcome overtook the end of the log
		<-over
		if text != "1a\n1b\n2a\n2b\n" {
			t.Fatalf("log %q", text)
		}
	})
}

func TestLogOfALostAgentEndsAfterAGrace(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		w := &logWriter{a: a, job: a.takeOne()}
		w.send(w.chunk("x\n", false))
		a.report(w.job, reeve.Done, "")
		began := time.Now()
		if text, _ := r.read(j.ID, LogPosition{}); text != "x\n" {
			t.Fatalf("log %q", text)
		}
		if d := time.Since(began); d != logGrace {
			t.Fatalf("ended after %s", d)
		}
	})
}

func TestLogOfAnUnknownJobIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for _, err := range r.broker.TailLog(t.Context(), "job_no", LogPosition{}) {
			if reeve.CodeOf(err) != "job_not_found" {
				t.Fatalf("tail: %v", err)
			}
		}
	})
}

func TestLongLogKeepsHeadAndTailAndSaysWhatIsMissing_J5(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		w := &logWriter{a: a, job: a.takeOne()}
		line := append(bytes.Repeat([]byte("."), 32<<10-1), '\n')
		for n := range 100 {
			copy(line, fmt.Sprintf("%04d", n))
			w.send(w.chunk(string(line), n == 99))
		}
		soFar := 0
		for e, err := range r.broker.ReadLog(t.Context(), j.ID, LogPosition{}) { // does not wait for the end
			if err != nil {
				t.Fatal(err)
			}
			soFar += len(e.Data)
		}
		a.report(w.job, reeve.Done, "")
		text, gaps := r.read(j.ID, LogPosition{})
		if uint64(len(text))+gaps != w.offset || len(text) > LogLimit || len(text) < LogLimit*9/10 {
			t.Fatalf("%d bytes kept, %d said to be missing, of %d", len(text), gaps, w.offset)
		}
		if soFar != len(text) {
			t.Fatalf("%d bytes before the end, %d after", soFar, len(text))
		}
		if text[:4] != "0000" || text[len(text)-len(line):][:4] != "0099" {
			t.Fatalf("begins %q, last chunk begins %q", text[:4], text[len(text)-len(line):][:4])
		}
		// Who had read up to a chunk that is gone meanwhile is told how much is missing.
		rest, gap := r.read(j.ID, LogPosition{Attempt: 1, Sequence: 40, Offset: 40 * 32 << 10})
		if gap == 0 || uint64(len(rest))+gap != w.offset-40*32<<10 {
			t.Fatalf("resumed: %d bytes, %d missing", len(rest), gap)
		}
	})
}

// J5: whatever is lost, repeated or cut on the way, and wherever a reader resumes, the
// log is the exact concatenation of what the agent sent.
func TestLogSurvivesCuts_J5(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rapid.Check(noDeadline{t}, func(rt *rapid.T) {
			a := r.agent("site_1").attach(1)
			j := r.enqueue(Spec{SiteID: "site_1"})
			w := &logWriter{a: a, job: a.takeOne()}
			var sent []*agentv1.LogChunk
			var want string
			for n := range rapid.IntRange(1, 12).Draw(rt, "chunks") {
				data := fmt.Sprintf("%d:%s\n", n, rapid.StringN(0, 10, 20).Draw(rt, "line"))
				sent = append(sent, w.chunk(data, false))
				want += data
			}
			sent[len(sent)-1].Last = true
			// The stream breaks again and again: each time the agent goes on from what was
			// acknowledged, or from before it.
			for acked, stored := 0, 0; acked < len(sent); stored = max(stored, acked) {
				from := rapid.IntRange(0, acked).Draw(rt, "from")
				to := rapid.IntRange(acked+1, len(sent)).Draw(rt, "to")
				if to > stored && rapid.IntRange(0, 4).Draw(rt, "fate") == 0 {
					r.faults.Next(1) // committed, but the acknowledgement is lost
					_, _ = r.broker.AppendLog(t.Context(), a.id, sent[from:to]...)
					stored = to
					continue
				}
				acked = int(w.send(sent[from:to]...).GetSequence()) //nolint:gosec // few
			}
			a.report(w.job, reeve.Done, "")
			if got, gaps := r.read(j.ID, LogPosition{}); got != want || gaps != 0 {
				rt.Fatalf("log %q with %d missing, want %q", got, gaps, want)
			}
			at := sent[rapid.IntRange(0, len(sent)-1).Draw(rt, "resume")]
			tail, _ := r.read(j.ID, LogPosition{Attempt: 1, Sequence: at.GetSequence(), Offset: at.GetOffset() + uint64(len(at.GetData()))})
			if tail != want[at.GetOffset()+uint64(len(at.GetData())):] {
				rt.Fatalf("resumed after %d: %q", at.GetSequence(), tail)
			}
			a.stop()
		})
	})
}

func TestFinishedJobsArePruned(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(8)
		j := r.enqueue(Spec{SiteID: "site_1"})
		w := &logWriter{a: a, job: a.takeOne()}
		for range pruneBatch * 2 {
			w.send(w.chunk("x\n", false))
		}
		a.report(w.job, reeve.Done, "")
		time.Sleep(Retention - time.Hour)
		r.expect(j.ID, StateDone)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if err := r.store.View(t.Context(), func(tx *store.Tx) error {
			if _, err := Get(tx, j.ID); reeve.CodeOf(err) != "job_not_found" {
				t.Errorf("the job is still there: %v", err)
			}
			for c, err := range chunks.List(tx, "") {
				t.Errorf("chunk %v is still there (%v)", c, err)
				break
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever bytes come as a log chunk, the head stays consistent.
func FuzzLogChunk(f *testing.F) {
	seed, _ := proto.Marshal(&agentv1.LogChunk{Job: "job_1", Attempt: 1, Fence: 7, Sequence: 1, Data: []byte("x\n")})
	f.Add(seed, uint64(0), uint64(0))
	f.Add([]byte{0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, uint64(9), uint64(1<<63))
	f.Fuzz(func(t *testing.T, b []byte, sequence, offset uint64) {
		c := new(agentv1.LogChunk)
		if proto.Unmarshal(b, c) != nil {
			return
		}
		h := &logHead{Sequence: sequence, Offset: offset}
		if h.receive(c) == received {
			if h.Sequence != sequence+1 || c.GetOffset() != offset || h.Offset < offset {
				t.Fatalf("took %v at %d/%d, now %d/%d", c, sequence, offset, h.Sequence, h.Offset)
			}
		} else if h.Sequence != sequence || h.Offset != offset {
			t.Fatalf("moved without taking %v", c)
		}
	})
}

func FuzzParseLogPosition(f *testing.F) {
	for _, s := range []string{"", "1-2-3", "4294967296-1-1", "-1-1-1", "01-1-1", "1-2-3-4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseLogPosition(s)
		if err == nil && s != "" && p.String() != s {
			t.Fatalf("%q was read as %s", s, p)
		}
	})
}

// Whatever bytes come as a result, it is refused or comes to one of the endings.
func FuzzResult(f *testing.F) {
	seed, _ := proto.Marshal(&agentv1.Result{Outcome: "not_done", Class: "busy", Message: "später"})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(agentv1.Result)
		if proto.Unmarshal(b, r) != nil {
			return
		}
		e, err := checkResult(r)
		if err != nil {
			return
		}
		j := queued(true)
		j.lease("agent_1", 7, epoch, defaultTerms)
		j.end(e, epoch, 0, defaultTerms)
		if j.State == StateLeased || len(j.Failure) > maxMessage {
			t.Fatalf("ended as %s, failure of %d bytes", j.State, len(j.Failure))
		}
	})
}

// Whatever bytes a job's work is, reading it does not panic, and what reads is written
// the same way again.
func FuzzWork(f *testing.F) {
	seed, _ := proto.Marshal(&agentv1.Work{Operation: "rotate", PlanHash: "h"})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decodeWork(b)
		if err != nil {
			return
		}
		again, err := proto.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := decodeWork(again); err != nil || !proto.Equal(v, w) {
			t.Fatalf("read back %v, %v", v, err)
		}
	})
}

// An agent that does not redact: what arrives is redacted again, in every form, before it
// is stored or shown; a chunk that ends in the middle of a line, and might hold half a
// secret, is refused.
func TestALogThatHoldsASecretIsRedactedAgain_J6(t *testing.T) {
	const secret = "C4nary-\"Se'cr$et\\9"
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1").attach(1)
		j := r.enqueue(Spec{SiteID: "site_1", Secrets: []SecretRef{r.secret(secret)}})
		w := &logWriter{a: a, job: a.takeOne()}
		want := 0
		for name, form := range redacttest.Forms(secret) {
			line, err := json.Marshal(map[string]string{"level": "info", "message": form})
			if err != nil {
				t.Fatal(err)
			}
			if ack := w.send(w.chunk(string(line)+"\n"+name+": "+strings.ReplaceAll(form, "\n", "")+"\n", false)); ack.GetRefused() {
				t.Fatalf("%s is refused", name)
			}
			want++
		}
		half := w.chunk("{\"message\":\""+secret[:8], false)
		if ack := w.send(half); !ack.GetRefused() {
			t.Error("a chunk that ends within a line was taken")
		}
		w.sequence--
		w.offset -= uint64(len(half.GetData()))
		if ack := w.send(w.chunk("the end\n", true)); ack.GetRefused() {
			t.Error("the log does not go on after the masked lines")
		}
		a.report(w.job, reeve.Done, "")
		text, gaps := r.read(j.ID, LogPosition{})
		if gaps != 0 || uint64(len(text)) != w.offset || !strings.HasSuffix(text, "the end\n") || strings.Count(text, "\n") != 2*want+1 {
			t.Errorf("%d of %d bytes, %d missing", len(text), w.offset, gaps)
		}
		for name, form := range redacttest.Forms(secret) {
			quoted, _ := json.Marshal(form)
			core := form
			if strings.HasPrefix(name, "base64 at") { // with neighbours that are not secret
				core = form[3 : 3+len(secret)*4/3-2]
			}
			if strings.Contains(text, core) || strings.Contains(text, string(quoted[4:len(quoted)-4])) {
				t.Errorf("%s is in the log", name)
			}
		}
	})
}
