package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The base images that the Dockerfiles name. No registry is asked for them: see makeBaseImages.
const (
	debianImage = "docker.io/library/debian:" + debianSuite + "-slim"
	golangImage = "docker.io/library/golang:1.26-" + debianSuite
)

// imagePackages are the Debian packages on the host that build images.
var imagePackages = []string{"buildah", "mmdebstrap"}

// imageTimeout bounds the build of one image; the first one compiles client-go.
const imageTimeout = 20 * time.Minute

// golangFrom makes of Debian's image what the Dockerfiles expect of Go's. Go itself and its caches are
// mounted from the host while an image is built, because copying them takes longer than the build.
const golangFrom = "FROM " + debianImage + `
ENV PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin GOPATH=/go GOCACHE=/gocache GOTOOLCHAIN=local
`

// ImageName returns the name under which a cluster knows the image of a program, "provisioner" or "node".
func ImageName(program, version string) string {
	return "ghcr.io/sharevol/sharevol-" + program + ":" + version
}

// Images returns the docker-archive tars of sharevol's own images for this machine's architecture,
// built from the repository's Dockerfiles with version stamped in.
func (h *Host) Images(ctx context.Context, version string) ([]string, error) {
	var tars []string
	for _, program := range []string{"node", "provisioner"} {
		tar, err := h.image(ctx, program, version, runtime.GOARCH)
		if err != nil {
			return nil, err
		}
		tars = append(tars, tar)
	}
	return tars, nil
}

// image returns the docker-archive tar of one program's image.
func (h *Host) image(ctx context.Context, program, version, arch string) (string, error) {
	host, err := hostGo(ctx, h.root)
	if err != nil {
		return "", err
	}
	sources, err := hashImageSources(h.root, program)
	if err != nil {
		return "", err
	}
	key := Key(sources, version, host.Version, golangFrom)
	dir, err := h.cache.Entry(ctx, "sharevol-"+program+"-"+arch, key, func(ctx context.Context, dir string) error {
		ctx, cancel := context.WithTimeoutCause(ctx, imageTimeout, fmt.Errorf("no image after %s", imageTimeout))
		defer cancel()
		if err := EnsurePackages(ctx, h.progress, imagePackages...); err != nil {
			return err
		}
		store, err := h.baseImages(ctx)
		if err != nil {
			return err
		}
		done := h.progress.Step("building the image of sharevol-" + program + " for " + arch)
		err = h.buildImage(ctx, host, store, dir, imageBuild{program, version, arch})
		done(err)
		return err
	})
	return filepath.Join(dir, "sharevol-"+program+".tar"), err
}

// imageBuild is one image to be built.
type imageBuild struct{ program, version, arch string }

// buildImage builds an image into dir, in a storage of its own on top of the base images' one. Layers
// are not kept: with them a build takes longer, for vfs copies the whole tree for each.
func (h *Host) buildImage(ctx context.Context, host goEnv, bases, dir string, image imageBuild) (err error) {
	// the build gets no network for Go, only what the host has
	if _, err := run(ctx, hostGoCommand(ctx, h.root, "mod", "download")); err != nil {
		return fmt.Errorf("download the Go modules: %w", err)
	}
	if err := os.MkdirAll(host.Cache, 0o777); err != nil { // go makes it only when it first builds
		return fmt.Errorf("make Go's build cache: %w", err)
	}
	store := imageStore{dir: filepath.Join(dir, "storage"), bases: bases}
	if err := store.create(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.remove()) }()
	name := ImageName(image.program, image.version)
	err = store.build(ctx, h.root, "Dockerfile."+image.program, name,
		"--platform", "linux/"+image.arch,
		"--build-arg", "TARGETARCH="+image.arch,
		"--build-arg", "BUILDPLATFORM=linux/"+runtime.GOARCH,
		"--build-arg", "VERSION="+image.version,
		"--build-arg", "GOPROXY=off",
		"--volume", host.Root+":/usr/local/go:ro",
		"--volume", host.ModCache+":/go/pkg/mod:ro",
		"--volume", host.Cache+":/gocache")
	if err != nil {
		return err
	}
	tar := filepath.Join(dir, "sharevol-"+image.program+".tar")
	_, err = run(ctx, store.buildah(ctx, "push", name, "docker-archive:"+tar+":"+name))
	return err
}

// goEnv is what the go command of the host says of itself.
type goEnv struct {
	Root     string `json:"GOROOT"`
	Version  string `json:"GOVERSION"`
	ModCache string `json:"GOMODCACHE"`
	Cache    string `json:"GOCACHE"`
}

func hostGo(ctx context.Context, module string) (goEnv, error) {
	var env goEnv
	out, err := run(ctx, hostGoCommand(ctx, module, "env", "-json", "GOROOT", "GOVERSION", "GOMODCACHE", "GOCACHE"))
	if err != nil {
		return env, err
	}
	if err := json.Unmarshal(out, &env); err != nil {
		return env, fmt.Errorf("understand go env: %w", err)
	}
	return env, nil
}

// hostGoCommand prepares the go command in a module's folder, for work that makes no program.
func hostGoCommand(ctx context.Context, module string, args ...string) *exec.Cmd {
	cmd := command(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	return cmd
}

// hashImageSources returns a digest of the files that an image is made from, as .dockerignore lets
// them through: all but the testbed and the tests.
func hashImageSources(root, program string) (string, error) {
	var paths []string
	for _, name := range []string{".dockerignore", "Dockerfile." + program, "LICENSE", "go.mod", "go.sum"} {
		paths = append(paths, filepath.Join(root, name))
	}
	testbed := filepath.Join(root, "internal", "testbed")
	for _, top := range []string{"internal", "nodeplugin", "provisioner"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (path == testbed || d.Name() == "testdata"):
				return filepath.SkipDir
			case d.Type().IsRegular() && !strings.HasSuffix(path, "_test.go"):
				paths = append(paths, path)
			}
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("list the sources of the images: %w", err)
		}
	}
	digest, err := hashFiles(paths...)
	if err != nil {
		return "", err
	}
	// hashFiles knows each of these files by its content only; a renamed one is another source too
	return Key(append(paths, digest)...), nil
}
