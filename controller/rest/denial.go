package rest

import (
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// denials keeps the records of refused calls from filling the trail: within a minute it
// lets denialsPerMinute of each principal through, and counts the others for the next.
type denials struct {
	mu   sync.Mutex
	seen map[reeve.PrincipalID]*denialCount
}

type denialCount struct {
	since               time.Time
	recorded, leftAside int
}

const denialsPerMinute = 30

// admit reports whether to record one more, and how many were left aside before it.
func (d *denials) admit(who reeve.PrincipalID, now time.Time) (record bool, leftAside int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = map[reeve.PrincipalID]*denialCount{}
	}
	n := d.seen[who]
	if n == nil {
		n = &denialCount{since: now}
		d.seen[who] = n
	}
	if now.Sub(n.since) >= time.Minute {
		n.since, n.recorded = now, 0
	}
	if n.recorded == denialsPerMinute {
		n.leftAside++
		return false, 0
	}
	n.recorded++
	leftAside, n.leftAside = n.leftAside, 0
	return true, leftAside
}

// recordDenial puts a refused call into the audit trail, and returns what to answer:
// refused, or the error of recording it.
func (s *Server) recordDenial(c *gin.Context, refused error) error {
	p := permissionOf(c)
	if p == nil || reeve.KindOf(refused) != reeve.Denied && !p.hidden {
		return refused
	}
	record, leftAside := s.denials.admit(p.who.ID, time.Now())
	if !record {
		return refused
	}
	operation := s.contract.routes[route(c)].Operation.OperationID
	details := map[string]string{"operation": operation, "privilege": string(p.rule.privilege(c)), "code": reeve.CodeOf(refused)}
	if leftAside > 0 {
		details["left_aside"] = strconv.Itoa(leftAside)
	}
	err := s.Store.Update(c.Request.Context(), func(tx *store.Tx) error {
		return audit.Record(tx, audit.Event{By: s.actor(c), Action: "access.deny", Object: p.object, Outcome: audit.Denied, Details: details})
	})
	if err != nil {
		return err
	}
	return refused
}
