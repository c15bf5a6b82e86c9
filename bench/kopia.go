package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// buildKopia builds the stock command of the version that the provider uses.
func buildKopia(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "kopia")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-modfile=tools/kopia/go.mod", "-trimpath", "-o", path, "github.com/kopia/kopia")
	cmd.Dir = ".."
	_, err := output(cmd)
	return path, err
}

func (w *workshop) kopiaEnv(target string) []string {
	return []string{"KOPIA_PASSWORD=" + password, "KOPIA_CONFIG_PATH=" + target + "/kopia.config", "KOPIA_CHECK_FOR_UPDATES=false",
		"KOPIA_CACHE_DIRECTORY=" + target + "/cache", "KOPIA_LOG_DIR=" + target + "/log"}
}

// kopiaCreate makes a repository: with the settings of the provider's, or with those that it has by itself.
func (w *workshop) kopiaCreate(ctx context.Context, target string, same bool) error {
	args := []string{"repository", "create", "filesystem", "--path", filepath.Join(target, "repository")}
	if same {
		args = append(args, "--object-splitter", "FIXED-1M", "--block-hash", "BLAKE3-256-128", "--encryption", "AES256-GCM-HMAC-SHA256")
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	if _, err := w.run(ctx, w.kopiaEnv(target), w.kopia, args...); err != nil || !same {
		return err
	}
	_, err := w.run(ctx, w.kopiaEnv(target), w.kopia, "policy", "set", "--global", "--compression", "s2-default")
	return err
}

// kopiaStore measures one snapshot of the directory that has the image and nothing else.
func (w *workshop) kopiaStore(same bool) func(context.Context) (outcome, error) {
	return w.into(func(ctx context.Context, target string) (usage, error) {
		if err := w.kopiaCreate(ctx, target, same); err != nil {
			return usage{}, err
		}
		return w.kopiaSnapshot(ctx, target, w.image)
	})
}

func (w *workshop) kopiaSnapshot(ctx context.Context, target, source string) (usage, error) {
	return w.run(ctx, w.kopiaEnv(target), w.kopia, "snapshot", "create", "--no-progress", source)
}

// kopiaFill makes a repository with the image, and returns the ID of the snapshot.
func (w *workshop) kopiaFill(ctx context.Context, target string, same bool) (string, error) {
	if err := w.kopiaCreate(ctx, target, same); err != nil {
		return "", err
	}
	if _, err := w.kopiaSnapshot(ctx, target, w.image); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, w.kopia, "snapshot", "list", "--json")
	cmd.Env = append(os.Environ(), w.kopiaEnv(target)...)
	out, err := output(cmd)
	if err != nil {
		return "", err
	}
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		return "", fmt.Errorf("kopia lists %d snapshots: %w", len(list), err)
	}
	return list[0].ID, nil
}
