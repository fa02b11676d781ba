package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// otherPause is between two calls of the other client: it watches and does not load the server.
const otherPause = 20 * time.Millisecond

// other is another client of a server, in which somebody writes to a file.
type other struct {
	client *guest.NFSClient
	file   *os.File
}

func startOther(ctx context.Context, server *guest.NFSServer) (*other, error) {
	client, err := guest.StartNFSClient(ctx, 1)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(server.Dir("other"), 0o777); err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	dir, err := client.Mount(ctx, server.Address+":/other", mountFlags...)
	if err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	return &other{client: client, file: file}, nil
}

// during returns how long each write took while work was being done, in milliseconds.
func (o *other) during(ctx context.Context, work func() error) ([]float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var times []float64
	var failed error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil && failed == nil {
			start := time.Now()
			failed = o.write()
			times = append(times, milliseconds(time.Since(start)))
			select {
			case <-ctx.Done():
			case <-time.After(otherPause):
			}
		}
	}()
	err := work()
	cancel()
	<-ended
	if failed != nil {
		failed = fmt.Errorf("the other client: %w", failed)
	}
	return times, errors.Join(err, failed)
}

// write writes a block through to the server.
func (o *other) write() error {
	if _, err := o.file.WriteAt(make([]byte, 4096), 0); err != nil {
		return err
	}
	return o.file.Sync()
}

func (o *other) close(ctx context.Context) error {
	return errors.Join(o.file.Close(), o.client.Close(context.WithoutCancel(ctx)))
}
