package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// provisionRows: accounts made on one MariaDB, from the API request to the proof by a fresh login, through three
// controllers, an agent and its connector. The floor is the bare driver with 16 open connections, which sends the
// statements the connector sends and makes the same login; it plans, records and seals nothing.
func provisionRows() []row {
	var rows []row
	for _, p := range []struct {
		name, with string
		existing   int
	}{{"provision-few", "few accounts there", 0}, {"provision-20k", "20,000 accounts there", 20_000}} {
		rows = append(rows, row{
			name: p.name, work: "provision on MariaDB, 16 in flight, " + p.with, unit: "accounts/s", more: true, require: 0.6,
			prepare: func(ctx context.Context, e *env) (*sides, error) { return provisionSides(ctx, e, p.existing) },
		})
	}
	return rows
}

// provisions is how many accounts are made in a run.
const provisions = 200

func provisionSides(ctx context.Context, e *env, existing int) (*sides, error) {
	w, err := startTargets(ctx, e)
	if err != nil {
		return nil, err
	}
	s, err := w.provisionSides(ctx, e, existing)
	if err != nil {
		w.fleet.Tails(e.stderr, 20)
		return nil, errors.Join(err, w.close())
	}
	return s, nil
}

func (w *targets) provisionSides(ctx context.Context, e *env, existing int) (*sides, error) {
	db, err := w.lab.MariaDB(testlab.MariaDBOptions{})
	if err != nil {
		return nil, err
	}
	if err := crowd(ctx, db, existing); err != nil {
		return nil, err
	}
	err = w.addAsset(ctx, client.AssetRequest{Name: "db", Connector: "mysql", Address: db.Addr, CaPem: &db.CAPEM,
		ManagementAccount: &client.ManagementAccountRequest{Username: testlab.Management, Password: &db.ManagementPassword}})
	if err != nil {
		return nil, err
	}
	floor, err := newBareMySQL(sdk.Target{Address: db.Addr, Port: db.Port, Trust: trust(db.Addr, db.CAPEM),
		Management: credential(testlab.Management, db.ManagementPassword)}, inFlight)
	if err != nil {
		return nil, err
	}
	n := e.few(provisions)
	cost := w.costsOf(func() []int { return []int{db.PID()} })
	reeve := func(ctx context.Context) ([]float64, error) {
		w.runs++
		orders := make([]client.ProvisionRequest, n)
		for i := range orders {
			orders[i] = client.ProvisionRequest{Name: fmt.Sprintf("r%d_%d", w.runs, i), Role: "mysql-db-rw", Assets: []string{"db"},
				Params: &map[string]string{"Database": "app"}}
		}
		var ids []string
		var took time.Duration
		err := cost.reeve.measure(n, func() (err error) {
			ids, took, err = w.provision(ctx, orders)
			return err
		})
		return perSecond(n, took), errors.Join(err, w.allWell(ctx, ids))
	}
	if _, err := reeve(ctx); err != nil { // warm
		return nil, err
	}
	cost.reeve.forget()
	return &sides{
		floor: func(ctx context.Context) ([]float64, error) {
			w.runs++
			began := time.Now()
			err := cost.floor.measure(n, func() error {
				return each(n, func(int) error { return floor.provision(ctx, newAccount()) })
			})
			return perSecond(n, time.Since(began)), err
		},
		reeve: reeve,
		note:  cost.String,
		close: func() error { return errors.Join(floor.close(), w.close()) },
	}, nil
}

// crowd fills the server's account table behind its back.
func crowd(ctx context.Context, db *testlab.Database, n int) error {
	if n == 0 {
		return nil
	}
	err := db.Exec(ctx, `INSERT INTO mysql.global_priv SELECT '%', CONCAT('crowd', seq), JSON_OBJECT('access', 0, 'plugin', 'mysql_native_password',
 'authentication_string', CONCAT('*', UPPER(SHA1(seq))), 'password_last_changed', 1) FROM app.seq_1_to_`+strconv.Itoa(n))
	return errors.Join(err, db.Exec(ctx, "FLUSH PRIVILEGES"))
}
