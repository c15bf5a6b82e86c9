package provider

import "strings"

// What libraries log of each request – a dozen lines as JSON – goes to Terraform, which throws it away unless its
// own logging is switched on. In a refresh of a thousand resources that is a tenth of the provider's
// time, and as much again of Terraform's.

// libraryLogs are the variables that set the levels of what the libraries log.
var libraryLogs = []string{"TF_LOG_SDK", "TF_LOG_SDK_PROTO", "TF_LOG_SDK_FRAMEWORK"}

// muteLibraries switches off what the libraries log, unless somebody wants to see the logs of providers. At debug,
// warnings are enough: what the framework compares, a line for each attribute, would hide the story of an operation.
// Its arguments are os.LookupEnv and os.Setenv.
func muteLibraries(lookup func(string) (string, bool), set func(key, value string) error) error {
	least := "off"
	for _, wanted := range []string{"TF_LOG", "TF_LOG_PROVIDER"} {
		switch level, _ := lookup(wanted); strings.ToLower(level) {
		case "":
		case "debug", "info", "warn", "error", "off":
			least = "warn"
		default: // trace, json and what else means everything
			return nil
		}
	}
	for _, library := range libraryLogs {
		if _, ok := lookup(library); ok {
			continue
		}
		if err := set(library, least); err != nil {
			return err
		}
	}
	return nil
}
