package main

import "slices"

// rows are the lines of the table, in its order. To add one, write a file with a function that returns it, and name
// the function here.
func rows() []row {
	return slices.Concat(
		storeRows(),
		peopleRows(),
		provisionRows(),
		rotateRows(),
		connectorRows(),
		pickupRows(),
		failoverRows(),
		memoryRows(),
		agentRows(),
	)
}
