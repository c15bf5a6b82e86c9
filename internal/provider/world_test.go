package provider

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/minio/minio-go/v7"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
	"github.com/terraform-vm/terraform-provider-vm/internal/vsphere"
)

// TestMain chooses the CLI that the tests with a configuration run: the one of
// TF_ACC_TERRAFORM_PATH, else terraform, else tofu. Nothing is downloaded.
func TestMain(m *testing.M) {
	minio.MaxRetry = 1 // of the S3 client's own attempts, which come on top of two others'
	if os.Getenv(envServe) != "" {
		if err := writePID(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := Serve(context.Background(), "test", false); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	cli := os.Getenv("TF_ACC_TERRAFORM_PATH")
	for _, name := range []string{"terraform", "tofu"} {
		if cli != "" {
			break
		}
		cli, _ = exec.LookPath(name) // where there is none, the tests say so
	}
	settings := map[string]string{
		"TF_ACC_TERRAFORM_PATH": cli, "TF_CLI_CONFIG_FILE": os.DevNull, "CHECKPOINT_DISABLE": "1",
	}
	if strings.HasPrefix(filepath.Base(cli), "tofu") {
		settings["TF_ACC_PROVIDER_NAMESPACE"] = "terraform-vm"
		settings["TF_ACC_PROVIDER_HOST"] = "registry.opentofu.org"
	}
	for name, value := range settings {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// A world is a lab, a repository, and the environment that points a provider at them.
type world struct {
	t    *testing.T
	lab  *lab.Lab
	repo string

	mu      sync.Mutex
	env     map[string]string
	serving *Provider
}

const repositoryPassword = "correct-horse-battery-staple"

// newWorld starts a lab with the VM web01 and others. Each has one disk unless it says otherwise.
func newWorld(t *testing.T, more ...lab.VMSpec) *world {
	t.Helper()
	if os.Getenv("TF_ACC_TERRAFORM_PATH") == "" {
		t.Skip("neither terraform nor tofu is on PATH: https://developer.hashicorp.com/terraform/install")
	}
	disk := labtest.RawDisk(t, 8<<20, 1)
	vms := append([]lab.VMSpec{{Name: "web01"}}, more...)
	for i := range vms {
		if vms[i].Disks == nil {
			vms[i].Disks = []string{disk}
		}
	}
	w := &world{t: t, repo: filepath.Join(t.TempDir(), "backups"), lab: labtest.Start(t, lab.Options{VMs: vms})}
	w.env = map[string]string{
		envServer: w.lab.URL().Host, envUser: w.lab.User(), envPassword: w.lab.Password(),
		envRepositoryPath: w.repo, envRepositoryPassword: repositoryPassword,
	}
	t.Cleanup(w.close)
	return w
}

// setenv changes the environment of the providers that start from now on.
func (w *world) setenv(name, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.env[name] = value
}

func (w *world) getenv(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.env[name]
}

// close ends what the last provider opened, as the end of its process would.
func (w *world) close() {
	w.mu.Lock()
	p := w.serving
	w.serving = nil
	w.mu.Unlock()
	if p != nil {
		p.Close(context.Background()) // the test's own context has ended
	}
}

// factories serve a new provider to every command that Terraform runs.
func (w *world) factories() map[string]func() (tfprotov6.ProviderServer, error) {
	return map[string]func() (tfprotov6.ProviderServer, error){"vm": func() (tfprotov6.ProviderServer, error) {
		w.close()
		p := New("test")
		p.getenv = w.getenv
		w.mu.Lock()
		w.serving = p
		w.mu.Unlock()
		return p.server(), nil
	}}
}

// run runs steps, with a provider that trusts the lab's certificate by its thumbprint.
func (w *world) run(steps ...resource.TestStep) {
	w.t.Helper()
	for i := range steps {
		if steps[i].Config != "" {
			steps[i].Config = w.provider() + steps[i].Config
		}
	}
	w.runAs(steps...)
}

// runAs runs steps that configure the provider themselves.
func (w *world) runAs(steps ...resource.TestStep) {
	w.t.Helper()
	resource.UnitTest(w.t, resource.TestCase{ProtoV6ProviderFactories: w.factories(), Steps: steps})
}

// provider is a provider block. Everything but the certificate comes from the environment.
func (w *world) provider() string { return w.providerWith("") }

// reading is a provider block that reads disks in one way only.
func (w *world) reading(transport string) string {
	return w.providerWith(fmt.Sprintf("    transports = [%q]\n", transport))
}

func (w *world) providerWith(arguments string) string {
	return providerSource() + fmt.Sprintf("provider \"vm\" {\n  vsphere = {\n    thumbprint = %q\n%s  }\n  repository = {}\n}\n",
		w.lab.Fingerprint(), arguments)
}

// providerSource names the provider's source where the CLI would not find it without: OpenTofu looks for a
// provider without a source under another name than the one the tests serve.
func providerSource() string {
	namespace := os.Getenv("TF_ACC_PROVIDER_NAMESPACE")
	if namespace == "" {
		return ""
	}
	return "terraform {\n  required_providers {\n    vm = {\n      source = \"" + namespace + "/vm\"\n    }\n  }\n}\n"
}

// client connects to the lab as somebody else than Terraform.
func (w *world) client() hypervisor.Hypervisor {
	w.t.Helper()
	c, err := vsphere.Connect(w.t.Context(), vsphere.Config{
		Server: w.lab.URL().Host, User: w.lab.User(), Password: secret.New(w.lab.Password()), Thumbprint: w.lab.Fingerprint(),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close(context.Background()) }) // the lab ends sessions too
	return c
}

// vm is a VM of the lab, which must be there.
func (w *world) vm(name string) lab.VMStatus {
	w.t.Helper()
	for _, vm := range w.lab.Status().VMs {
		if vm.Name == name {
			return vm
		}
	}
	w.t.Fatalf("no VM %q in the lab", name)
	return lab.VMStatus{}
}

// path is the inventory path of a VM.
func (w *world) path(name string) string { return w.vm(name).Folder + "/" + name }

// content is the content of a disk of a VM.
func (w *world) content(vm string, disk int) []byte {
	w.t.Helper()
	p := make([]byte, w.vm(vm).Disks[disk].Capacity)
	if err := w.lab.ReadDisk(vm, disk, 0, p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// Checks of plans.
func emptyPlan() []plancheck.PlanCheck { return []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()} }

func actionPlan(address string, action plancheck.ResourceActionType) []plancheck.PlanCheck {
	return []plancheck.PlanCheck{plancheck.ExpectResourceAction(address, action)}
}
