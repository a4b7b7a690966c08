package seal

import (
	"crypto/rand"
	"crypto/subtle"
)

// Shamir's secret sharing over GF(2^8) with the AES polynomial x^8+x^4+x^3+x+1.
// Each byte of the secret is the constant term of its own random polynomial of
// degree threshold-1; share x holds the values at x. No step branches on, or
// indexes by, secret bytes: tables leak through the cache (CVE-2023-25000).

// point is one share: the polynomials' values at x.
type point struct {
	x byte // 1 to 255
	y []byte
}

// split shares secret among n points, any threshold of which give it back.
// 2 <= threshold <= n <= 255 must hold.
func split(secret []byte, n, threshold int) []point {
	points := make([]point, n)
	for i := range points {
		points[i] = point{x: byte(i + 1), y: make([]byte, len(secret))} //nolint:gosec // n <= 255
	}
	coefficients := make([]byte, threshold)
	defer clear(coefficients)
	for i, s := range secret {
		_, _ = rand.Read(coefficients) // never fails
		coefficients[0] = s
		for _, p := range points {
			var y byte
			for c := threshold - 1; c >= 0; c-- { // Horner
				y = mul(y, p.x) ^ coefficients[c]
			}
			p.y[i] = y
		}
	}
	return points
}

// combine interpolates the constant terms from points with distinct x and equal
// lengths. With too few or wrong points the result is an unrelated value: check it.
func combine(points []point) []byte {
	secret := make([]byte, len(points[0].y))
	for i, p := range points {
		weight := byte(1) // of p at 0: product of xj/(xj-xi)
		for j, q := range points {
			if i != j {
				weight = mul(weight, mul(q.x, inverse(q.x^p.x)))
			}
		}
		for k, y := range p.y {
			secret[k] ^= mul(weight, y)
		}
	}
	return secret
}

// mul multiplies in GF(2^8) in constant time.
func mul(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return product
}

// inverse is a^254, which is 1/a, and 0 for 0.
func inverse(a byte) byte {
	result := byte(1)
	for bit := 7; bit >= 0; bit-- {
		result = mul(result, result)
		picked := byte(subtle.ConstantTimeSelect(254>>bit&1, int(a), 1)) //nolint:gosec // both fit a byte
		result = mul(result, picked)
	}
	return result
}
