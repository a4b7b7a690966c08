package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Measures of the picture, in pixels.
const (
	svgWidth  = 900
	svgLabels = 400 // where bars begin
	svgBars   = 330 // how long they may be
	svgRow    = 26
	svgTop    = 62
)

// The scale is logarithmic: from a quarter of what is required to sixteen times that.
const (
	svgLeast = 0.25
	svgMost  = 16
)

// headroom is by how much a row is better than it must be; 1 is the mark itself.
func (r *result) headroom() float64 {
	got := r.Reeve.Value
	if r.Floor != nil {
		got = r.Ratio
	}
	if r.More {
		return got / r.Required
	}
	return r.Required / got
}

func svgX(times float64) float64 {
	return svgLabels + svgBars*math.Log(min(max(times, svgLeast), svgMost)/svgLeast)/math.Log(svgMost/svgLeast)
}

// picture draws the result: a bar for each row of which something is required, and a line where it must reach.
func (rep *report) picture() []byte {
	var b strings.Builder
	results := slices.DeleteFunc(slices.Clone(rep.Results), func(r result) bool { return r.Required == 0 })
	height := svgTop + svgRow*len(results) + 36
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="How each benchmark compares with its mark">
<style>
  .bg { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, sans-serif } .faint { fill: #59636e; font-size: 12px }
  .title { font-size: 16px; font-weight: 600 } .ok { fill: #2f7d5b } .missed { fill: #c2410c }
  .mark { stroke: #1f2328; stroke-width: 1.5 } .grid { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    .bg { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #9198a1 } .ok { fill: #3fb27f } .missed { fill: #f0883e }
    .mark { stroke: #e6edf3 } .grid { stroke: #30363d }
  }
</style>
<rect class="bg" width="%d" height="%d"/>
<text class="title" x="16" y="26">How far beyond its mark</text>
`, svgWidth, height, svgWidth, height)
	bottom := svgTop + svgRow*len(results) + 4
	for _, t := range []float64{0.5, 1, 2, 4, 8} {
		class := "grid"
		if t == 1 {
			class = "mark"
		}
		fmt.Fprintf(&b, `<line class="%s" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text class="faint" x="%.1f" y="%d" text-anchor="middle">%g×</text>`+"\n",
			class, svgX(t), svgX(t), svgTop-8, bottom, svgX(t), svgTop-14, t)
	}
	for i := range results {
		r := &results[i]
		y := svgTop + svgRow*i
		class := "ok"
		if !r.OK {
			class = "missed"
		}
		value := number(r.Reeve.Value) + " " + r.Unit
		if r.Floor != nil {
			value = fmt.Sprintf("%s · %.2f", value, r.Ratio)
		}
		fmt.Fprintf(&b, `<text x="16" y="%d">%s</text><rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/><text class="faint" x="%.1f" y="%d">%s</text>`+"\n",
			y+15, escape(shorten(r.Work)), class, svgLabels, y+3, svgX(r.headroom())-svgLabels, svgRow-9, max(svgX(r.headroom()), svgX(1))+6, y+15, escape(value))
	}
	fmt.Fprintf(&b, `<text class="faint" x="16" y="%d">%s</text>`+"\n</svg>\n", height-12, escape("The line at 1× is what is required; bars beyond it are better. "+rep.Machine.When))
	return []byte(b.String())
}

// shorten fits a label into its column.
func shorten(s string) string {
	const most = 58
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
