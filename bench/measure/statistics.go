package measure

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Quantile returns the q-th quantile of values by nearest rank, or NaN if values is empty.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(max(int(math.Ceil(q*float64(len(sorted))))-1, 0), len(sorted)-1)]
}

// Median returns the middle value, or the mean of the two in the middle, or NaN if values is empty.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Milliseconds returns a quantile of latencies in milliseconds.
func Milliseconds(latencies []time.Duration, q float64) float64 {
	ms := make([]float64, len(latencies))
	for i, l := range latencies {
		ms[i] = float64(l) / float64(time.Millisecond)
	}
	return Quantile(ms, q)
}

// Interval returns the 95 % confidence interval of the median of values, by the bootstrap: the middle
// 95 % of the medians of samples drawn from values, with the same draws each time.
func Interval(values []float64) (low, high float64) {
	if len(values) == 0 {
		return math.NaN(), math.NaN()
	}
	const samples = 2000
	draw := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, samples)
	sample := make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[draw.IntN(len(values))]
		}
		medians[i] = Median(sample)
	}
	return Quantile(medians, 0.025), Quantile(medians, 0.975)
}
