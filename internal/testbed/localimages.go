package testbed

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// The images that the testbed makes itself, because no registry is needed for a test: stand-ins that
// act as the real ones do, under their names.
const (
	PauseImage     = "registry.k8s.io/pause:3.10"
	BusyboxImage   = "docker.io/library/busybox:1.37"
	RegistrarImage = "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.15.0"
)

// imageFile is one file of an image's only layer; one with a link is a symbolic link to it, one with
// neither link nor data is a folder.
type imageFile struct {
	path string
	mode int64
	data []byte
	link string
}

// imageConfig is the part of an image's configuration that matters here.
type imageConfig struct {
	Entrypoint []string `json:",omitempty"`
	Cmd        []string `json:",omitempty"`
	Env        []string `json:",omitempty"`
}

// LocalImages returns the docker-archive tars of the images above.
func (h *Host) LocalImages(ctx context.Context) ([]string, error) {
	rootfs, err := h.RootFS(ctx)
	if err != nil {
		return nil, err
	}
	registrar, err := h.program(ctx, "registrar")
	if err != nil {
		return nil, err
	}
	hash, err := hashFiles(rootfs.Busybox, registrar, h.source("localimages.go"))
	if err != nil {
		return nil, err
	}
	dir, err := h.cache.Entry(ctx, "images", Key(hash), func(ctx context.Context, dir string) error {
		return makeLocalImages(ctx, dir, rootfs.Busybox, registrar)
	})
	if err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, "busybox.tar"), filepath.Join(dir, "registrar.tar")}, nil
}

func makeLocalImages(ctx context.Context, dir, busybox, registrar string) error {
	files, err := busyboxFiles(ctx, busybox)
	if err != nil {
		return err
	}
	// one image under two names: the guest unpacks it only once
	err = writeImage(filepath.Join(dir, "busybox.tar"), files,
		imageConfig{Cmd: []string{"/bin/sleep", "2147483647"}, Env: []string{"PATH=/bin"}}, PauseImage, BusyboxImage)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(registrar)
	if err != nil {
		return fmt.Errorf("read the registrar: %w", err)
	}
	return writeImage(filepath.Join(dir, "registrar.tar"),
		[]imageFile{{path: "csi-node-driver-registrar", mode: 0o755, data: program}},
		imageConfig{Entrypoint: []string{"/csi-node-driver-registrar"}}, RegistrarImage)
}

func busyboxFiles(ctx context.Context, busybox string) ([]imageFile, error) {
	data, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	applets, err := run(ctx, command(ctx, busybox, "--list"))
	if err != nil {
		return nil, fmt.Errorf("list busybox's commands: %w", err)
	}
	files := []imageFile{
		{path: "bin", mode: 0o755}, {path: "etc", mode: 0o755}, {path: "tmp", mode: 0o1777},
		{path: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/bin/sh\n")},
		{path: "etc/group", mode: 0o644, data: []byte("root:x:0:\n")},
		{path: "bin/busybox", mode: 0o755, data: data},
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			files = append(files, imageFile{path: "bin/" + applet, link: "busybox"})
		}
	}
	return files, nil
}

// writeImage writes an image of one layer as a docker-archive, the form that "docker save" makes.
func writeImage(path string, files []imageFile, config imageConfig, names ...string) error {
	layer, err := tarOf(files)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(layer)
	configJSON, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config, "history": []struct{}{{}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(digest[:])}},
	})
	if err != nil {
		return fmt.Errorf("encode an image's configuration: %w", err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "Layers": []string{"layer.tar"}, "RepoTags": names}})
	if err != nil {
		return fmt.Errorf("encode an image's manifest: %w", err)
	}
	archive, err := tarOf([]imageFile{
		{path: "config.json", mode: 0o644, data: configJSON},
		{path: "layer.tar", mode: 0o644, data: layer},
		{path: "manifest.json", mode: 0o644, data: manifest},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, archive, 0o644); err != nil {
		return fmt.Errorf("write the image %s: %w", names[0], err)
	}
	return nil
}

func tarOf(files []imageFile) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, file := range files {
		header := &tar.Header{Name: file.path, Mode: file.mode, Size: int64(len(file.data)), Linkname: file.link}
		switch {
		case file.link != "":
			header.Typeflag = tar.TypeSymlink
		case file.data == nil:
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("add %q to a tar: %w", file.path, err)
		}
		if _, err := w.Write(file.data); err != nil {
			return nil, fmt.Errorf("add %q to a tar: %w", file.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end a tar: %w", err)
	}
	return out.Bytes(), nil
}
