package processors

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watched is set in the environment of this program as a scanner.
const watched = "PROCESSORS_WATCHED"

// stall is how long the scanner holds up a program that it is not told to let go.
const stall = 10 * time.Second

func TestMain(m *testing.M) {
	if path := os.Getenv(watched); path != "" {
		if err := scan(path); err != nil {
			fmt.Println(err)
		}
		return
	}
	os.Exit(m.Run())
}

// scan holds up the starts of a program, as a virus scanner does that looks at it, until stdin says something.
func scan(path string) error {
	scanner, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return err
	}
	if err := unix.FanotifyMark(scanner, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, path); err != nil {
		return err
	}
	fmt.Println("ready")
	opened := make(chan int32, 10)
	go func() {
		defer close(opened)
		buffer := make([]byte, unix.FAN_EVENT_METADATA_LEN) // one at a time
		for {
			if _, err := unix.Read(scanner, buffer); err != nil {
				return
			}
			opened <- (*unix.FanotifyEventMetadata)(unsafe.Pointer(&buffer[0])).Fd
		}
	}()
	told, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended) // with the test
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 1 {
			close(told)
			_, _ = io.Copy(io.Discard, os.Stdin)
		}
	}()
	for first := true; ; first = false {
		var fd int32
		select {
		case fd = <-opened:
		case <-ended:
			return nil
		}
		if first {
			select {
			case <-told:
			case <-ended:
			case <-time.After(stall):
			}
		}
		var answer [8]byte
		binary.NativeEndian.PutUint32(answer[:], uint32(fd))
		binary.NativeEndian.PutUint32(answer[4:], unix.FAN_ALLOW)
		if _, err := unix.Write(scanner, answer[:]); err != nil {
			return err
		}
	}
}

// Programs whose starts are held up hold up nothing else, on one processor either.
func TestStartsThatAreHeldUp(t *testing.T) {
	truth, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, truth, 0o755); err != nil {
		t.Fatal(err)
	}
	scanner := exec.Command(os.Args[0])
	scanner.Env = append(os.Environ(), watched+"="+program)
	release, err := scanner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := scanner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := scanner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = scanner.Process.Kill()
		_ = scanner.Wait()
	})
	if line, _ := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
		t.Skipf("this machine allows no fanotify: %s", line)
	}
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() {
		few = 0
		runtime.GOMAXPROCS(before)
	})
	Use(1)
	begun := time.Now()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			started := Starting()
			command := exec.Command(program)
			err := command.Start()
			started()
			if err == nil {
				err = command.Wait()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // what has to go on
	_, _ = release.Write([]byte{'!'})
	if took := time.Since(begun); took >= stall {
		t.Errorf("all was held up for %s", took)
	}
	all.Wait()
}
