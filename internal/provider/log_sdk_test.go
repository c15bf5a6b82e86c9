package provider

import (
	"errors"
	"maps"
	"testing"
)

func TestMuteLibraries(t *testing.T) {
	t.Parallel()
	all := map[string]string{"TF_LOG_SDK": "off", "TF_LOG_SDK_PROTO": "off", "TF_LOG_SDK_FRAMEWORK": "off"}
	warnings := map[string]string{"TF_LOG_SDK": "warn", "TF_LOG_SDK_PROTO": "warn", "TF_LOG_SDK_FRAMEWORK": "warn"}
	for name, test := range map[string]struct{ env, set map[string]string }{
		"nothing wanted":    {map[string]string{}, all},
		"empty":             {map[string]string{"TF_LOG": "", "TF_LOG_PROVIDER": ""}, all},
		"core alone":        {map[string]string{"TF_LOG_CORE": "TRACE"}, all},
		"the story":         {map[string]string{"TF_LOG": "INFO"}, warnings},
		"providers' story":  {map[string]string{"TF_LOG_PROVIDER": "DEBUG"}, warnings},
		"all wanted":        {map[string]string{"TF_LOG": "DEBUG", "TF_LOG_PROVIDER": "TRACE"}, nil},
		"as JSON":           {map[string]string{"TF_LOG": "json"}, nil},
		"a library's level": {map[string]string{"TF_LOG_SDK": "WARN"}, map[string]string{"TF_LOG_SDK_PROTO": "off", "TF_LOG_SDK_FRAMEWORK": "off"}},
	} {
		set := map[string]string{}
		err := muteLibraries(
			func(key string) (string, bool) { value, ok := test.env[key]; return value, ok },
			func(key, value string) error { set[key] = value; return nil })
		if err != nil || !maps.Equal(set, test.set) {
			t.Errorf("%s: set %v, %v, want %v", name, set, err, test.set)
		}
	}
	failure := errors.New("no")
	err := muteLibraries(func(string) (string, bool) { return "", false }, func(string, string) error { return failure })
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
}
