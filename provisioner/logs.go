package main

import (
	"os"
	"strconv"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// libraryVerbosity is the level from which the unstructured lines of libraries are
// logged: the controller library writes some ten for each volume at level 0.
const libraryVerbosity = 4

// setUpLogs keeps klog's format and levels, without these lines. Warnings and errors stay.
func setUpLogs() {
	level := 0
	for klog.V(klog.Level(level + 1)).Enabled() {
		level++
	}
	config := textlogger.NewConfig()
	_ = config.Verbosity().Set(strconv.Itoa(level)) // fails only for what is no number
	klog.SetLoggerWithOptions(textlogger.NewLogger(config), klog.ContextualLogger(true), klog.WriteKlogBuffer(func(line []byte) {
		if len(line) > 0 && line[0] == 'I' && level < libraryVerbosity {
			return
		}
		_, _ = os.Stderr.Write(line)
	}))
}
