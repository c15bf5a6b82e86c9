package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
)

// walkRepositories backs up to real servers, where there are some, with the configurations of the guide. Those for
// others must be valid.
func walkRepositories(g *guide) {
	g.begin()
	for name, value := range map[string]string{
		envRepositoryPath: "", "XDG_CACHE_HOME": g.t.TempDir(), "AWS_REGION": storagetest.S3Region,
		"AWS_ACCESS_KEY_ID": storagetest.S3AccessKey, "AWS_SECRET_ACCESS_KEY": storagetest.S3SecretKey,
		"AZURE_STORAGE_KEY": "a2V5", "GS_ACCESS_KEY_ID": "i", "GS_SECRET_ACCESS_KEY": "k", "B2_APPLICATION_KEY_ID": "i", "B2_APPLICATION_KEY": "k",
	} {
		g.w.setenv(name, value)
	}
	s3 := storagetest.NewS3(g.t, true)
	g.w.setenv("AWS_ENDPOINT_URL_S3", s3.Network(g.t).URL())
	g.backUpWith("s3.tf")
	g.backUpWith("object-lock.tf")

	sshd := storagetest.NewSSHD(g.t)
	network, hosts := sshd.Network(g.t)
	key := filepath.Join(g.t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(sshd.Key), 0o600); err != nil {
		g.t.Fatal(err)
	}
	g.w.setenv(envSFTPKeyFile, key)
	g.backUpWith("sftp.tf", `"backup.example.com"`, fmt.Sprintf("\"127.0.0.1\"\n      port = %d\n      known_hosts = %q", network.Addr().Port, hosts),
		`user = "backup"`, fmt.Sprintf("user = %q", sshd.User), "/srv/backups", sshd.Dir)

	dav := storagetest.NewWebDAV(g.t)
	g.w.setenv(envWebDAVPassword, storagetest.WebDAVPassword)
	g.backUpWith("webdav.tf", "https://dav.example.com/backups", dav.Network(g.t).URL(), `"backup"`, fmt.Sprintf("%q", storagetest.WebDAVUser))

	for _, file := range []string{"azure.tf", "gcs.tf", "b2.tf"} {
		g.write(file)
		g.s.must("validate")
	}
}

// backUpWith takes a backup with a provider block of the guide, in which some words are others.
func (g *guide) backUpWith(file string, replace ...string) {
	g.t.Helper()
	g.used[file] = true
	config := readFile(g.t, filepath.Join(g.dir, file))
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(config, replace[i]) {
			g.t.Fatalf("%s has no %s", file, replace[i])
		}
	}
	g.s.write(strings.NewReplacer(replace...).Replace(config) + "resource \"vm_backup\" \"web01\" {\n  vm = \"web01\"\n  on_destroy = \"delete\"\n}\n")
	g.s.must("apply", "-auto-approve")
	if again := g.s.must("plan"); !strings.Contains(again, "No changes") {
		g.t.Errorf("the plan after applying %s isn't empty:\n%s", file, again)
	}
	g.s.must("destroy", "-auto-approve")
}
