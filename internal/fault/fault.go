// Package fault has the points at which tests kill the provisioner, to see that a
// crash between two steps leaves nothing behind. They are in a program only if it
// was built with the tag "faults"; otherwise a Point is nothing.
//
// In such a build the environment variable SHAREVOL_FAULT names one point, and
// SHAREVOL_FAULT_MARKER a file that does not exist yet. The first process that
// comes to the point makes the file and ends itself, and the program that it
// helps, as kill -9 would. Later it passes the point, so that a restart goes on.
package fault
