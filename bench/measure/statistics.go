package measure

import (
	"math"
	"slices"
	"time"
)

// Quantile is the q-th quantile of values, by nearest rank; NaN of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(max(int(math.Ceil(q*float64(len(sorted))))-1, 0), len(sorted)-1)]
}

// Median is the middle value, or the mean of the two in the middle; NaN of none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Milliseconds is a quantile of latencies.
func Milliseconds(latencies []time.Duration, q float64) float64 {
	ms := make([]float64, len(latencies))
	for i, l := range latencies {
		ms[i] = float64(l) / float64(time.Millisecond)
	}
	return Quantile(ms, q)
}
