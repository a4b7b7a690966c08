package ios

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

type Profile struct{}

func (Profile) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) { panic("x") }
func (Profile) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	panic("x")
}
func (Profile) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	panic("x")
}
func (Profile) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	panic("x")
}
func (Profile) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	panic("x")
}
func (Profile) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	panic("x")
}
func (Profile) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	panic("x")
}
