package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

func TestString_neverPrints(t *testing.T) {
	t.Parallel()
	s := secret.New("hunter2")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("connect", "password", s, "all", struct{ P secret.String }{s})
	js, err := json.Marshal(map[string]any{"p": s})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%s %v %+v %#v %q %x %v", s, s, s, s, s, s, &s) + log.String() + string(js)
	if strings.Contains(all, "hunter2") || strings.Contains(all, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("the secret was printed: %s", all)
	}
	if s.Reveal() != "hunter2" || !s.IsSet() || secret.New("").IsSet() {
		t.Error("Reveal or IsSet is wrong")
	}
}
