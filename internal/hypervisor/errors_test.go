package hypervisor

import "testing"

// TestPermissionError says what is missing as a sentence, however many privileges that are.
func TestPermissionError(t *testing.T) {
	t.Parallel()
	for privilege, want := range map[string]string{
		"":                   "a privilege is missing on /DC/vm/web01",
		"A.B":                "privilege A.B is missing on /DC/vm/web01",
		"A.B, Host.Config.C": "privileges A.B, Host.Config.C are missing on /DC/vm/web01",
	} {
		if got := (&PermissionError{Privilege: privilege, Object: "/DC/vm/web01"}).Error(); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}
