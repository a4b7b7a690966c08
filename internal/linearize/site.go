package linearize

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	api "github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A change through the API, on any node, with an idempotency key: a site of one name is
// made once, and who repeats the request that made it gets the same site again.

const siteKeys = 3 // idempotency keys with which each site is asked for

type siteOp struct{ Key int } // 0: read

type siteAnswer struct{ ID string } // "": taken, or not there

type siteState struct {
	Made bool
	Key  int
	ID   string // "" while nobody was told
}

var siteModel = model(func(s siteState, in siteOp, out *siteAnswer) (bool, siteState) {
	mine := s.Made && s.Key == in.Key
	if in.Key != 0 && !s.Made {
		s.Made, s.Key, mine = true, in.Key, true
	}
	switch {
	case out == nil:
		return true, s
	case mine || in.Key == 0 && s.Made:
		ok := out.ID != "" && (s.ID == "" || s.ID == out.ID)
		s.ID = out.ID
		return ok, s
	default:
		return out.ID == "", s
	}
})

func (c *client) site(ctx context.Context) {
	name := c.key("site", 6)
	in := siteOp{Key: c.rand.IntN(siteKeys + 1)}
	n := c.cluster.nodes[c.rand.IntN(len(c.cluster.nodes))] // any: followers forward
	call := c.history.now()
	id, err := c.askSite(ctx, n.info.APIAddr, strings.ReplaceAll(name, "/", "-"), in.Key)
	v := verdictOf(err)
	if in.Key == 0 {
		v = readVerdict(err)
	}
	c.note(name, siteModel, call, in, siteAnswer{id}, v)
}

// askSite makes a site, or reads it when key is 0. The id is empty when the site is
// somebody else's, or is not there.
func (c *client) askSite(ctx context.Context, addr, name string, key int) (id string, err error) {
	method, url, body := http.MethodGet, "https://"+addr+"/v1/sites/"+name, []byte(nil)
	if key != 0 {
		method, url, body = http.MethodPost, "https://"+addr+"/v1/sites", fmt.Appendf(nil, `{"name":%q}`, name)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+c.cluster.token.Reveal())
	if key != 0 {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", fmt.Sprintf("%s-%d", name, key))
	}
	resp, err := c.cluster.http.Do(r)
	if err != nil {
		return "", err // not a *reeve.Error: unknown
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	switch {
	case resp.StatusCode < 300:
		var site api.Site
		err = json.Unmarshal(raw, &site)
		return site.Id, err
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusConflict:
		return "", nil
	case resp.StatusCode == http.StatusServiceUnavailable:
		return "", reeve.Errorf(reeve.Unavailable, "unavailable", "%s", raw)
	default:
		return "", errors.New(resp.Status)
	}
}
