package ios

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// The published example of hashcat for its mode 9200, "Cisco-IOS $8$ (PBKDF2-SHA256)".
func TestSecretIsWhatDevicesCompute(t *testing.T) {
	t.Parallel()
	const example = "$8$TnGX/fE4KGHOVU$pEhnEvxrvaynpi8j4f.EMHr6M.FzU8xnZnBr/tJdFWk"
	got, err := hash(sdk.NewSecret([]byte("hashcat")), "TnGX/fE4KGHOVU")
	if err != nil || got != example {
		t.Errorf("hash: %s, %v; want %s", got, err, example)
	}
}

func TestLockedSecretFitsNoPasswordAndCanBeOpened(t *testing.T) {
	t.Parallel()
	password := sdk.NewSecret([]byte("Some pass?word 1"))
	for _, mark := range []string{"", markOf("acct_1")} {
		s, err := newSecret(password, mark)
		if err != nil {
			t.Fatal(err)
		}
		locked := s.lock()
		again, err := hash(password, locked.salt())
		switch {
		case err != nil:
			t.Fatal(err)
		case again == locked || locked == s || !locked.locked() || s.locked():
			t.Errorf("%s locked is %s, and the password still fits", s, locked)
		case locked.unlock() != s || locked.lock() != locked || s.unlock() != s:
			t.Errorf("%s locked and unlocked is %s", s, locked.unlock())
		case locked.mark() != mark || s.mark() != mark:
			t.Errorf("the mark is %q, locked %q, want %q", s.mark(), locked.mark(), mark)
		case !locked.is(password) || !s.is(password) || s.is(sdk.NewSecret([]byte("Some pass?word 2"))):
			t.Errorf("%s is not recognised by its password", s)
		}
	}
}

func TestSecretsOfOthersAreNoneOfOurs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := secret(rapid.OneOf(
			rapid.StringMatching(`\$8\$[./0-9A-KM-QS-Za-z][./0-9A-Za-z]{13}\$[./0-9A-Za-z]{43}`),
			rapid.StringMatching(`\$9\$[./0-9A-Za-z]{14}\$[./0-9A-Za-z]{43}`),
			rapid.String(),
		).Draw(t, "secret"))
		if s.mark() != "" || s.locked() || s.lockable() || s.lock() != s || s.unlock() != s {
			t.Fatalf("%q was taken for one of ours", s)
		}
	})
}

func TestPasswordsBeyondASCIIAreRefused(t *testing.T) {
	t.Parallel()
	_, err := newSecret(sdk.NewSecret([]byte("Grün-Secret-1")), "")
	if sdk.ClassOf(err) != sdk.ClassPolicyRejected || strings.Contains(err.Error(), "Grün") {
		t.Errorf("%v", err)
	}
}
