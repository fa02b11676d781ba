package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sharevol.dev/sharevol/internal/testbed/scene"
)

const outro = `
That was all of it. On a cluster of yours:

  kubectl apply -k manifests/                     # install sharevol
  vi manifests/examples/storageclass.yaml         # your NFS server and its export
  kubectl apply -f manifests/examples/

README.md says what a class can ask for, and what to do when something does not work.
`

// show is the demo in the machine: each step prints a line with its time.
type show struct {
	*scene.Scene
	start, last time.Time
}

// step prints what was seen and how long it took since the step before.
func (s *show) step(what, format string, args ...any) {
	now := time.Now()
	fmt.Printf("%5.1f s  %-22s %s\n", now.Sub(s.last).Seconds(), what, fmt.Sprintf(format, args...))
	s.last = now
}

// play plays all scenes.
func play(ctx context.Context) (int, error) {
	s := &show{start: time.Now(), last: time.Now()}
	fmt.Println("\nThe cluster")
	var err error
	s.Scene, err = scene.Start(ctx, func(format string, args ...any) { fmt.Printf("         %s\n", fmt.Sprintf(format, args...)) })
	if err != nil {
		return 0, err
	}
	s.step("cluster", "1 node, Ready: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, containerd")
	if err := s.tell(ctx); err != nil {
		return 0, errors.Join(err, s.Cluster.DumpLogs(ctx, os.Stdout))
	}
	fmt.Printf("\n%5.1f s  in all\n%s", time.Since(s.start).Seconds(), outro)
	return 0, nil
}

func (s *show) tell(ctx context.Context) error {
	s.step("share", "%s:%s, exported by the Linux kernel's NFS server", scene.ServerName, scene.Share)
	fmt.Println("\nkubectl apply -k manifests/")
	if err := s.Install(ctx); err != nil {
		return err
	}
	s.step("sharevol", "provisioner and node plugin are running")
	fmt.Println("\nkubectl apply -f manifests/examples/")
	if _, err := s.Cluster.Kubectl(ctx, "apply", "-f", scene.Examples); err != nil {
		return err
	}
	pv, err := s.Bound(ctx, "notes")
	if err != nil {
		return err
	}
	s.step("claim notes", "Bound to %s", pv.Name)
	pod, err := s.Running(ctx, "writer")
	if err != nil {
		return err
	}
	s.step("pod writer", "Running")
	if err := s.showData(ctx, pod, pv); err != nil {
		return err
	}
	return s.takeAway(ctx, pv)
}

// showData shows the mount, and the file from both sides.
func (s *show) showData(ctx context.Context, pod *corev1.Pod, pv *corev1.PersistentVolume) error {
	target := scene.Target(pod, pv)
	mounts, err := scene.Mounts(target)
	if err != nil {
		return err
	}
	if len(mounts) != 1 || !strings.Contains(mounts[0], " nfs4 ") {
		return fmt.Errorf("no nfs4 mount on %s, but %q", target, mounts)
	}
	fields := strings.Fields(mounts[0])
	s.step("mount", "%s %s", fields[2], fields[0])
	fmt.Printf("%32son %s\n%32s(%s)\n", "", fields[1], "", fields[3])
	var seen []string
	for _, from := range []struct{ who, file string }{
		{"file, as the pod wrote", filepath.Join(target, "hello.txt")},
		{"as the server sees it", filepath.Join(s.Dir(pv), "hello.txt")},
	} {
		data, err := s.File(ctx, from.file)
		if err != nil {
			return err
		}
		seen = append(seen, data)
		s.step(from.who, "%s: %q", from.file, data)
	}
	if want := "hello from writer\n"; seen[0] != want || seen[1] != want {
		return fmt.Errorf("the file should say %q", want)
	}
	return nil
}

// takeAway deletes pod and claim, and sees that the directory goes.
func (s *show) takeAway(ctx context.Context, pv *corev1.PersistentVolume) error {
	fmt.Println("\nkubectl delete pod/writer pvc/notes")
	if _, err := s.Cluster.Kubectl(ctx, "delete", "pod/writer", "pvc/notes", "--timeout=120s"); err != nil {
		return err
	}
	s.step("pod and claim", "gone, and the mount with them")
	if err := s.VolumeGone(ctx, pv.Name); err != nil {
		return err
	}
	if _, err := os.Lstat(s.Dir(pv)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the directory %s is still there (%v)", s.Dir(pv), err)
	}
	left, err := os.ReadDir(s.NFS.Dir(scene.Share))
	if err != nil {
		return err
	}
	s.step("directory", "gone; the share holds %d entries", len(left))
	return nil
}
