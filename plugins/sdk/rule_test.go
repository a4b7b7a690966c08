package sdk_test

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestPasswordRuleForASCIIAlone(t *testing.T) {
	t.Parallel()
	rule := sdk.PasswordRule{MinLength: 8, MaxLength: 20, ASCIIOnly: true}
	for password, ok := range map[string]bool{"abcdefgh": true, `~!"'\]} x`: true, "abcdefgü": false, "abcdefg🔑": false} {
		err := rule.Check(sdk.NewSecret([]byte(password)))
		if ok != (err == nil) {
			t.Errorf("%q: %v", password, err)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("the error quotes the password: %v", err)
		}
	}
}
