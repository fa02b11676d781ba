package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// imageStore is a folder in which buildah builds images, without a daemon and without the kernel's
// overlay file system, which is not there in every container that tests run in.
type imageStore struct {
	dir   string
	bases string // the folder of a store whose images may be built upon, or empty
}

func (s imageStore) create() error {
	if err := os.MkdirAll(filepath.Join(s.dir, "tmp"), 0o755); err != nil {
		return fmt.Errorf("make a storage for images: %w", err)
	}
	return nil
}

// remove removes the store.
func (s imageStore) remove() error {
	if err := removeTree(s.dir); err != nil {
		return fmt.Errorf("remove the storage of an image: %w", err)
	}
	return nil
}

// buildah prepares the buildah command on this store.
func (s imageStore) buildah(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{
		"--storage-driver", "vfs",
		"--root", filepath.Join(s.dir, "root"), "--runroot", filepath.Join(s.dir, "run"),
	}
	if s.bases != "" {
		global = append(global, "--storage-opt", "vfs.imagestore="+filepath.Join(s.bases, "root"))
	}
	cmd := command(ctx, "buildah", append(global, args...)...)
	tmp := filepath.Join(s.dir, "tmp")
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "TMPDIR="+tmp,
		// else a user finds buildah's small caches in the home folder afterwards
		"HOME="+tmp, "XDG_CONFIG_HOME="+tmp, "XDG_DATA_HOME="+tmp, "XDG_RUNTIME_DIR="+tmp)
	return cmd
}

// build builds a Dockerfile of the folder source, from images that are there already.
func (s imageStore) build(ctx context.Context, source, dockerfile, name string, options ...string) error {
	args := append([]string{"bud", "--pull-never", "--network", "host", "--layers=false"}, options...)
	args = append(args, "--file", filepath.Join(source, dockerfile), "--tag", name, source)
	_, err := run(ctx, s.buildah(ctx, args...))
	return err
}

// baseImages returns the folder of a store with the images that the Dockerfiles build upon.
func (h *Host) baseImages(ctx context.Context) (string, error) {
	key := Key(debianSuite, golangFrom, runtime.GOARCH)
	return h.cache.Entry(ctx, "baseimages", key, func(ctx context.Context, dir string) error {
		done := h.progress.Step("making base images out of Debian packages (about 30 s)")
		err := makeBaseImages(ctx, dir)
		done(err)
		return err
	})
}

func makeBaseImages(ctx context.Context, dir string) (err error) {
	store := imageStore{dir: dir}
	if err := store.create(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.remove())
		}
	}()
	scratch := filepath.Join(dir, "scratch")
	if err := makeDebianTar(ctx, scratch, "debian.tar"); err != nil {
		return err
	}
	for _, base := range []struct{ name, dockerfile string }{
		{debianImage, "FROM scratch\nADD debian.tar /\n"},
		{golangImage, golangFrom},
	} {
		if err := os.WriteFile(filepath.Join(scratch, "Dockerfile"), []byte(base.dockerfile), 0o644); err != nil {
			return fmt.Errorf("describe a base image: %w", err)
		}
		if err := store.build(ctx, scratch, "Dockerfile", base.name); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(scratch); err != nil {
		return fmt.Errorf("remove the scratch folder: %w", err)
	}
	return store.makeRemovable()
}

// makeDebianTar makes the folder scratch and in it a tar of a minimal Debian, without what the "slim"
// image leaves out.
func makeDebianTar(ctx context.Context, scratch, name string) error {
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return fmt.Errorf("make a scratch folder: %w", err)
	}
	args := []string{"--variant=minbase"}
	for _, unneeded := range []string{"doc", "info", "locale", "man"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+unneeded+"/*")
	}
	return mmdebstrap(ctx, scratch, append(args, debianSuite, filepath.Join(scratch, name))...)
}

// makeRemovable lets a user other than root remove the store's layers by ordinary means, as a whole
// cache folder is removed: buildah makes their top folders read-only.
func (s imageStore) makeRemovable() error {
	layers, err := filepath.Glob(filepath.Join(s.dir, "root", "vfs", "dir", "*"))
	for _, layer := range layers {
		err = errors.Join(err, os.Chmod(layer, 0o755))
	}
	if err != nil {
		return fmt.Errorf("make a storage removable: %w", err)
	}
	return nil
}
