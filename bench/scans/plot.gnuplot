# Plots what bench/scan has measured: first scans by number of users, and ratios with what is aimed at.
# Variables: work (the folder of growth.dat and ratios.dat), png
set terminal pngcairo noenhanced size 1500, 600 font 'sans,9'
set output png
ways = int(system('grep -c ^\" '.work.'/growth.dat'))
has_ratios = int(system('wc -l <'.work.'/ratios.dat'))
set multiplot
if (ways > 0) {
	set origin 0, 0; set size 0.42, 1
	set title 'First scan of 20 mixed strategies (median)'
	set logscale xy; set xlabel 'users'; set ylabel 'seconds'; set grid; set key top left
	set format x '%.0f'; set xrange [1000:2000000]
	plot for [i = 0:ways - 1] work.'/growth.dat' index i using 1:2 with linespoints pointtype 7 title columnheader(1)
}
if (has_ratios > 0) {
	reset
	set origin 0.42, 0; set size 0.58, 1
	set title 'Ratios (bars) and aims (lines)'
	set logscale x; set grid x; set key off
	set lmargin 56; set style fill solid 0.6
	set yrange [has_ratios - 0.4:-0.6]
	plot work.'/ratios.dat' using ($2):0:(0.001):($2):($0 - 0.35):($0 + 0.35):ytic(1) with boxxyerror linecolor rgb '#4477aa', \
		'' using 3:0:(0):(0.4) with vectors nohead linecolor rgb '#cc3311' linewidth 2, \
		'' using 3:0:(0):(-0.4) with vectors nohead linecolor rgb '#cc3311' linewidth 2
}
unset multiplot
