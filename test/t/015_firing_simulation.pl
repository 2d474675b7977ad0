# The simulation that a year of firings is compared with, against examples that were worked out by hand.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use QuotaTest::FiringSimulation;
use Test::More;

my $hour = 3_600_000_000;
my $minute = 60_000_000;
my $simulation;

# A clock of small numbers: in hours, the firings of the schedule "N" every N hours.
sub begin
{
	my (%columns) = @_;

	$simulation = QuotaTest::FiringSimulation->new(
		firings => sub { return [ map { $_ * $_[0] * $hour } 1 .. 200 / $_[0] ] },
		pays_at => 'paid',
		users => sub {
			my ($condition, $known) = @_;
			return (['a'], []) if $condition eq 'one';
			return $known->{paid}{b} ? (['b'], []) : ([], ['b']) if $condition eq 'low';
			return $known->{g}{b} ? ([ 'a', 'b' ], []) : (['a'], ['b']);
		});
	$simulation->create(0, name => 's', model => 'm', periodic_expr => 1, condition => 'one', %columns);
	return;
}

sub scan { $simulation->scan($_[0] * $hour); return }
sub tick { $simulation->tick($_[0] * $hour); return }
sub edit { my ($now, %change) = @_; $simulation->edit($now * $hour, 's', %change); return }

# Rows as text: first-last xcount state (reason), in hours.
sub is_rows
{
	my ($name, @rows) = @_;
	my @found = map {
		my $row = $_;
		join ' ', $row->{count} == 1 ? $row->{first} / $hour : $row->{first} / $hour . "-$row->{count}-" . $row->{last} / $hour,
		  $row->{state}, $row->{reason} // ()
	} $simulation->rows('s');

	is_deeply(\@found, \@rows, $name);
	return;
}

begin();
scan(0);
scan(0.99);
is_rows('nothing before the first firing');
scan(1);
scan(1);
scan(1.5);
is_rows('a firing is run once', '1 done');
scan(5.5);
scan(6);
is_rows('latest', '1 done', '2-3-4 skipped a later firing was run instead', '5 done', '6 done');
is_deeply($simulation->grants('s'), { map { $_ * $hour => { a => 1 } } 1, 5, 6 }, 'grants of what was run');
is_deeply([ $simulation->all_firings('s', 6.5 * $hour) ], [ map { $_ * $hour } 1 .. 6 ], 'all firings');

begin(catch_up_window => 2 * $hour);
scan(6);
is_rows('latest, a firing as old as the window is too old',
	'1-4-4 skipped older than catch_up_window', '5 skipped a later firing was run instead', '6 done');

begin(periodic_expr => 10, catch_up_window => 2 * $hour);
scan(12);
is_rows('latest, none inside the window', '10 skipped older than catch_up_window');
scan(32.5);
is_rows('the same reason again joins the row', '10-3-30 skipped older than catch_up_window');

begin(catch_up => 'none');
scan(1 + 2 / 60);
is_rows('none, two minutes are late', '1 skipped more than 2 minutes late');
scan(3 + 1.9 / 60);
is_rows('none, less is not', '1-2-2 skipped more than 2 minutes late', '3 done');
begin(catch_up => 'none', periodic_expr => 1 / 60);
scan(1);
is_rows('none, the last of those in time',
	join('-', 1 / 60, 58, 58 / 60) . ' skipped more than 2 minutes late', 59 / 60 . ' skipped a later firing was run instead', '1 done');

begin(catch_up => 'all');
scan(30);
is_rows('all, one day', '1-6-6 skipped older than catch_up_window', map { "$_ done" } 7 .. 30);
begin(catch_up => 'all', catch_up_max => 2, catch_up_window => 4 * $hour);
scan(6);
is_rows('all, no more than the maximum',
	'1-2-2 skipped older than catch_up_window', '3-2-4 skipped more than catch_up_max', '5 done', '6 done');

begin(valid_from => 3 * $hour, valid_until => 5 * $hour, catch_up => 'all');
scan(2);
is_rows('before valid_from', '1-2-2 skipped before valid_from');
scan(3);
scan(6);
is_rows('a firing at valid_from is valid, one at valid_until is not, one inside is not run afterwards',
	'1-2-2 skipped before valid_from', '3 done', '4 skipped not run before valid_until', '5-2-6 skipped after valid_until');

begin();
scan(1);
edit(3.5, enabled => 0);
is_rows('disabling tells what was due', '1 done', '2-2-3 skipped paused');
scan(4);
edit(5, enabled => 1);
scan(5.5);
is_rows('enabling too, and nothing of it is run', '1 done', '2-4-5 skipped paused');
scan(6);
edit(7, archived => 1, enabled => 0);
edit(8, archived => 0);
edit(9.5, enabled => 1);
is_rows('archived goes before paused', '1 done', '2-4-5 skipped paused', '6 done', '7-2-8 skipped archived', '9 skipped paused');

begin();
edit(2, periodic_expr => 3);
scan(3);
is_rows('an edit of the schedule', '1-2-2 skipped schedule edited', '3 done');
edit(7, amount => 7);
scan(7);
is_rows('another edit', '1-2-2 skipped schedule edited', '3 done', '6 done');
edit(9, type => 'single', periodic_expr => undef);
scan(11);
is_deeply($simulation->granted_once('s'), { a => 1 }, 'granted once while it is single');
edit(20, type => 'periodic', periodic_expr => 1);
scan(21);
is_rows('a single strategy has no firings',
	'1-2-2 skipped schedule edited', '3 done', '6 done', '9 skipped schedule edited', '21 done');
is_deeply([ map { $_ / $hour } $simulation->all_firings('s', 21 * $hour) ], [ 1, 2, 3, 6, 9, 21 ], 'firings of all of its schedules');

begin();
edit(2, time_zone => 'elsewhere', enabled => 0);
is_rows('paused goes before an edit of the schedule', '1-2-2 skipped paused');

begin(valid_until => 2 * $hour);
edit(3.5, valid_until => 9 * $hour);
scan(4);
is_rows('what the old validity left out stays so', '1 skipped not run before valid_until', '2-2-3 skipped after valid_until', '4 done');
edit(6.5, valid_until => 6 * $hour);
scan(6.5);
is_rows('the new one decides about the rest', '1 skipped not run before valid_until', '2-2-3 skipped after valid_until', '4 done',
	'5 skipped not run before valid_until', '6 skipped after valid_until');

foreach my $catch_up ('none', 'latest', 'all')
{
	my $failed = 'failed no gateway serves model "m" of strategy "s"';
	my $done = $catch_up eq 'all' ? 'done' : $failed;

	begin(catch_up => $catch_up, catch_up_window => 2 * $hour);
	$simulation->set_broken('m', 1);
	scan(1);
	scan(1 + 1 / 60);
	is_rows("$catch_up, a firing that fails", "1 $failed");
	is($simulation->refused('s', title => 'x'), 1, 'an edit is refused');
	is($simulation->refused('s', enabled => 0), '', 'to disable is not');
	scan(2);
	$simulation->set_broken('m', 0);
	scan(2 + 1 / 60);
	is_rows("$catch_up, and another after it", "1 $done", '2 done');
	$simulation->set_broken('m', 1);
	scan(3);
	$simulation->set_broken('m', 0);
	edit(3, enabled => 0);
	scan(3);
	edit(3, enabled => 1);
	scan(3 + 1 / 60);
	is_rows("$catch_up, nor after it was enabled", "1 $done", '2 done', "3 $failed");
	$simulation->set_broken('m', 1);
	scan(4);
	$simulation->set_broken('m', 0);
	scan(4 + ($catch_up eq 'none' ? 2 / 60 : 2));
	is_rows("$catch_up, nor when it is too late", "1 $done", '2 done', "3 $failed", "4 $failed",
		$catch_up eq 'none' ? () : $catch_up eq 'all' ? ('5 done', '6 done') : ('5 skipped a later firing was run instead', '6 done'));
}

begin(condition => 'balance');
scan(1);
is_rows('incomplete', '1 incomplete');
$simulation->set_balances_known('g', 'b');
scan(1);
is_rows('and done', '1 done');
is_deeply($simulation->grants('s'), { $hour => { a => 1, b => 1 } }, 'each once');
scan(2);
is_rows('what is paid elsewhere does not matter', '1 done', '2 done');

begin(condition => 'low');
$simulation->set_balances_known('paid', 'b');
scan(1);
scan(2);
is_rows('one balance grants once', '1 done', '2 incomplete');
$simulation->set_balances_known('paid', 'b');
scan(2);
is_rows('and again when it was read again', '1 done', '2 done');

# A tick.
begin(enabled => 0);
tick(1.9);
is_rows('what is not run is not told of at once');
tick(2);
is_rows('but scan_interval after the first of them', '1-2-2 skipped draft');
tick(2.5);
scan(3);
is_rows('and by any scan', '1-3-3 skipped draft');
begin(valid_from => 2 * $hour);
tick(1.5);
tick(2);
is_rows('or with what is run', '1 skipped before valid_from', '2 done');

done_testing();
