package main

import "testing"

func TestEveryAnswerThatIsKnownSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for n, m := range meanings {
		if m.class == "" || m.message == "" || m.fix == "" {
			t.Errorf("%d: %+v", n, m)
		}
	}
	for n, m := range loginStates {
		if m.class == "" || m.message == "" || m.fix == "" {
			t.Errorf("state %d: %+v", n, m)
		}
	}
}
