package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/directory"
	"github.com/reeve-pam/reeve/controller/store"
)

func showDirectory(d *directory.Directory) (client.Directory, error) {
	return client.Directory{Name: d.Name, Address: d.Address, StartTls: d.StartTLS, BindDn: d.BindDN, UserBase: d.UserBase, UserFilter: d.UserFilter,
		GroupAttribute: d.GroupAttribute, CreateUsers: d.CreateUsers, CreatedAt: d.CreatedAt}, nil
}

// ListDirectories implements the contract.
func (s *Server) ListDirectories(ctx context.Context, r ListDirectoriesRequestObject) (ListDirectoriesResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.DirectoryPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(directory.List(tx, after), r.Params.Limit, func(d *directory.Directory) string { return d.Name }, showDirectory)
		return err
	})
	return ListDirectories200JSONResponse(out), err
}

// AddDirectory implements the contract.
func (s *Server) AddDirectory(ctx context.Context, r AddDirectoryRequestObject) (AddDirectoryResponseObject, error) {
	password := secret(r.Body.Password)
	defer password.Wipe()
	d := directory.Directory{Name: r.Body.Name, Address: r.Body.Address, StartTLS: value(r.Body.StartTls), CA: r.Body.Ca, BindDN: r.Body.BindDn, UserBase: r.Body.UserBase,
		UserFilter: value(r.Body.UserFilter), GroupAttribute: value(r.Body.GroupAttribute), CreateUsers: value(r.Body.CreateUsers)}
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Directory, error) {
		made, err := directory.Add(tx, by, d, password)
		if err != nil {
			return client.Directory{}, err
		}
		return showDirectory(made)
	})
	return AddDirectory201JSONResponse(out), err
}

// RenewDirectory implements the contract.
func (s *Server) RenewDirectory(ctx context.Context, r RenewDirectoryRequestObject) (RenewDirectoryResponseObject, error) {
	password := secret(r.Body.Password)
	defer password.Wipe()
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Directory, error) {
		d, err := directory.Renew(tx, by, r.Directory, value(r.Body.Ca), password)
		if err != nil {
			return client.Directory{}, err
		}
		return showDirectory(d)
	})
	return RenewDirectory200JSONResponse(out), err
}

// RemoveDirectory implements the contract.
func (s *Server) RemoveDirectory(ctx context.Context, r RemoveDirectoryRequestObject) (RemoveDirectoryResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, identity.RemoveDirectory(tx, by, r.Directory)
	})
	return RemoveDirectory204Response{}, err
}

// TestDirectory implements the contract. The directory is asked when the record of it is
// committed, and in no transaction.
func (s *Server) TestDirectory(ctx context.Context, r TestDirectoryRequestObject) (TestDirectoryResponseObject, error) {
	user := value(r.Body.User)
	var d *directory.Directory
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		if d, err = directory.Find(tx, r.Directory); err != nil {
			return none{}, err
		}
		return none{}, directory.RecordTest(tx, by, d.Name, user)
	})
	if err != nil {
		return nil, err
	}
	a, err := directory.Look(ginContext(ctx).Request.Context(), d, user)
	if err != nil {
		return nil, err
	}
	out := TestDirectory200JSONResponse{ActiveDirectory: a.Active, UserDn: optional(a.DN)}
	if len(a.Groups) > 0 {
		out.Groups = &a.Groups
	}
	return out, nil
}
