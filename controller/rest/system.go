package rest

import (
	"context"
	"encoding/pem"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func (s *Server) status(ctx context.Context) client.Status {
	st := s.Seal.Status()
	out := client.Status{Node: string(s.Node), Name: s.Name, Version: s.Version, Cluster: optional(s.Cluster), Initialized: st.Initialised,
		Sealed: st.Sealed, Leader: s.Raft.IsLeader(), Seal: client.SealStatus{Scheme: client.None}}
	if st.Initialised {
		out.Seal.Scheme = client.SealStatusScheme(st.Scheme)
	}
	if st.Threshold > 0 {
		given := len(st.Given)
		out.Seal.Threshold, out.Seal.Shares, out.Seal.Progress = &st.Threshold, &st.Shares, &given
	}
	if addr, err := s.leaderAPI(ctx); err == nil {
		out.LeaderAddress = &addr
	}
	out.DiskProblem = optional(s.Raft.DiskProblem())
	return out
}

// GetStatus implements the contract.
func (s *Server) GetStatus(ctx context.Context, _ GetStatusRequestObject) (GetStatusResponseObject, error) {
	return GetStatus200JSONResponse(s.status(ctx)), nil
}

// UnsealNode implements the contract.
func (s *Server) UnsealNode(ctx context.Context, r UnsealNodeRequestObject) (UnsealNodeResponseObject, error) {
	if _, err := s.Seal.Unseal(reeve.SecretString(value(r.Body.Share))); err != nil {
		return nil, err
	}
	return UnsealNode200JSONResponse(s.status(ctx)), nil
}

// SealNode implements the contract. Forwarded by another controller it only records:
// that one then seals itself.
func (s *Server) SealNode(ctx context.Context, _ SealNodeRequestObject) (SealNodeResponseObject, error) {
	node := s.Node
	if by := forwarderOf(ginContext(ctx).Request); by != "" {
		node = by
	}
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		if _, err := pki.GetNode(tx, node); err != nil {
			return none{}, err
		}
		return none{}, audit.Record(tx, audit.Event{By: by, Action: "node.seal", Object: string(node)})
	})
	if err != nil {
		return nil, err
	}
	if node == s.Node {
		s.Seal.SealNode()
	}
	return SealNode200JSONResponse(s.status(ctx)), nil
}

// JoinCluster implements the contract.
func (s *Server) JoinCluster(ctx context.Context, r JoinClusterRequestObject) (JoinClusterResponseObject, error) {
	e, err := s.Authority.EnrollNode(ctx, reeve.NewSecret(r.Body.Token), r.Body.Csr, pki.NodeInfo{
		RaftAddr: r.Body.RaftAddress, APIAddr: r.Body.ApiAddress, AgentAddr: r.Body.AgentAddress,
	}, callerIP(ginContext(ctx).Request))
	if err != nil {
		return nil, err
	}
	if err := s.Raft.AddNonvoter(ctx, e.Node.ID, e.Node.RaftAddr); err != nil {
		return nil, err
	}
	return JoinCluster200JSONResponse(joinResult(e)), nil
}

// RenewNode implements the contract.
func (s *Server) RenewNode(ctx context.Context, r RenewNodeRequestObject) (RenewNodeResponseObject, error) {
	c := ginContext(ctx)
	if !fromController(c.Request) || forwarderOf(c.Request) != "" { // a forwarded call shows the forwarder's certificate
		return nil, reeve.Errorf(reeve.Unauthenticated, "certificate_missing", "only a controller can renew its certificate").
			WithFix("call the leading controller itself, with the certificate that is to be renewed")
	}
	e, err := s.Authority.RenewNode(ctx, c.Request.TLS.VerifiedChains[0][0], r.Body.Csr, pki.NodeInfo{
		RaftAddr: r.Body.RaftAddress, APIAddr: r.Body.ApiAddress, AgentAddr: r.Body.AgentAddress,
	})
	if err != nil {
		return nil, err
	}
	return RenewNode200JSONResponse(joinResult(e)), nil
}

func joinResult(e *pki.NodeEnrollment) client.JoinResult {
	return client.JoinResult{Cluster: e.Cluster, Node: string(e.Node.ID), Name: e.Node.Name, Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate})), Ca: string(e.CA)}
}

// GetCluster implements the contract.
func (s *Server) GetCluster(ctx context.Context, _ GetClusterRequestObject) (GetClusterResponseObject, error) {
	out := client.Cluster{Id: s.Cluster, Members: []client.Member{}, Clock: s.clock()}
	err := s.view(ctx, func(tx *store.Tx) error {
		for _, m := range s.Raft.Members() {
			node, err := pki.GetNode(tx, m.ID)
			if err != nil {
				return err
			}
			out.Members = append(out.Members, client.Member{Id: string(m.ID), Name: node.Name, RaftAddress: node.RaftAddr, ApiAddress: node.APIAddr,
				AgentAddress: node.AgentAddr, Voter: m.Voter, Leader: m.Leader, Healthy: m.Healthy, LastContactMs: optional(m.LastContact.Milliseconds())})
		}
		return nil
	})
	return GetCluster200JSONResponse(out), err
}

// CreateNodeJoinToken implements the contract.
func (s *Server) CreateNodeJoinToken(ctx context.Context, r CreateNodeJoinTokenRequestObject) (CreateNodeJoinTokenResponseObject, error) {
	t, err := s.joinToken(ctx, func(*store.Tx) (pki.NewJoinToken, error) {
		return pki.NewJoinToken{Role: pki.RoleNode, Name: r.Body.Name, Lifetime: seconds(r.Body.TtlSeconds, 0)}, nil
	})
	return CreateNodeJoinToken201JSONResponse(t), err
}

// joinToken makes a join token that names all controllers.
func (s *Server) joinToken(ctx context.Context, what func(*store.Tx) (pki.NewJoinToken, error)) (client.JoinToken, error) {
	var made *pki.JoinToken
	var text reeve.Secret
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		in, err := what(tx)
		if err != nil {
			return none{}, err
		}
		members, err := pki.ListNodes(tx)
		if err != nil {
			return none{}, err
		}
		for _, n := range members {
			addr := n.APIAddr
			if in.Role == pki.RoleAgent {
				addr = n.AgentAddr
			}
			in.Addresses = append(in.Addresses, addr)
		}
		made, text, err = pki.CreateJoinToken(tx, by, in)
		return none{}, err
	})
	if err != nil {
		return client.JoinToken{}, err
	}
	return client.JoinToken{Id: string(made.ID), Token: text.Reveal(), ExpiresAt: made.Expires}, nil
}

// member finds a controller by id or name.
func member(tx *store.Tx, ref string) (*pki.Node, error) {
	members, err := pki.ListNodes(tx)
	if err != nil {
		return nil, err
	}
	for _, n := range members {
		if string(n.ID) == ref || n.Name == ref {
			return n, nil
		}
	}
	return nil, reeve.Errorf(reeve.NotFound, "node_not_found", "there is no controller %q", ref).WithFix("see `reeve cluster status`")
}

// RemoveNode implements the contract. Raft is asked first: it refuses when the cluster
// could not go on without the node, and then nothing has changed.
func (s *Server) RemoveNode(ctx context.Context, r RemoveNodeRequestObject) (RemoveNodeResponseObject, error) {
	var found *pki.Node
	err := s.view(ctx, func(tx *store.Tx) (err error) {
		found, err = member(tx, r.Node)
		return err
	})
	switch {
	case reeve.KindOf(err) == reeve.NotFound: // perhaps the same call again
	case err != nil:
		return nil, err
	case found.ID == s.Node:
		return nil, reeve.Errorf(reeve.Conflict, "node_leads", "%s leads the cluster", found.Name).
			WithFix("hand leadership over first: reeve cluster transfer")
	default:
		if err := s.Raft.Remove(ctx, found.ID); err != nil && reeve.KindOf(err) != reeve.NotFound {
			return nil, err
		}
	}
	_, err = update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		n, err := member(tx, r.Node)
		if err != nil {
			return none{}, err
		}
		return none{}, pki.RemoveNode(tx, by, n.ID)
	})
	if err != nil {
		return nil, err
	}
	return RemoveNode204Response{}, nil
}

// TransferLeadership implements the contract.
func (s *Server) TransferLeadership(ctx context.Context, r TransferLeadershipRequestObject) (TransferLeadershipResponseObject, error) {
	to, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (id reeve.NodeID, err error) {
		if r.Body.Node != nil && *r.Body.Node != "" {
			n, err := member(tx, *r.Body.Node)
			if err != nil {
				return "", err
			}
			id = n.ID
		}
		return id, audit.Record(tx, audit.Event{By: by, Action: "cluster.transfer", Object: "cluster", Details: map[string]string{"to": string(id)}})
	})
	if err != nil {
		return nil, err
	}
	if err := s.Raft.TransferLeadership(ctx, to); err != nil {
		return nil, err
	}
	return TransferLeadership204Response{}, nil
}
