
=pod

=head1 NAME

QuotaTest::RunComparison - what became of firings in the database, compared with a simulation

=head1 SYNOPSIS

  compare_runs($node, $simulation, \@history, 'at the end');
  my ($firings, $runs, $stretches) = account_for_firings($node, $simulation, $now);

=head1 DESCRIPTION

The simulation is a QuotaTest::FiringSimulation. If a strategy is not as simulated,
what was done to it is written to a file beside the logs, and the test ends.

=cut

package QuotaTest::RunComparison;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Utils;
use QuotaTest::RandomStrategies qw(time_text);
use Test::More;

our @EXPORT_OK = qw(found_rows compare_runs account_for_firings);

# What the server shows of each strategy, a line for each row: first and last firing, how many, state, and why
# it failed or was skipped.
sub found_rows
{
	my ($node) = @_;

	return _by_name($node->safe_psql('postgres', <<'SQL'));
SELECT concat_ws(' ', s.name, (extract(epoch FROM r.scheduled_time) * 1000000)::bigint, (extract(epoch FROM coalesce(r.last_scheduled_time, r.scheduled_time)) * 1000000)::bigint,
	r.occurrences, r.state, CASE WHEN r.state <> 'incomplete' THEN r.reason END)
FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
WHERE r.scheduled_time IS NOT NULL ORDER BY s.name, r.scheduled_time
SQL
}

sub _found_grants
{
	my ($node) = @_;

	return _by_name($node->safe_psql('postgres', <<'SQL'));
SELECT concat_ws(' ', s.name, CASE WHEN e.scheduled_time = '-infinity' THEN 'once' ELSE (extract(epoch FROM e.scheduled_time) * 1000000)::bigint::text END,
	string_agg(e.user_id, ',' ORDER BY e.user_id))
FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
GROUP BY s.name, e.scheduled_time ORDER BY s.name, e.scheduled_time
SQL
}

sub _by_name
{
	my %lines;

	foreach my $line (split /\n/, $_[0])
	{
		my ($name, $rest) = split / /, $line, 2;
		$lines{$name} .= "$rest\n";
	}
	return \%lines;
}

sub _expected_rows
{
	my ($simulation, $name) = @_;

	return join '', map { join(' ', @{$_}{qw(first last count state)}, $_->{reason} // ()) . "\n" } $simulation->rows($name);
}

sub _expected_grants
{
	my ($simulation, $name) = @_;
	my $grants = $simulation->grants($name);
	my $once = join ',', sort keys %{ $simulation->granted_once($name) };

	return join '', $once eq '' ? () : "once $once\n",
	  map { "$_ " . join(',', sort keys %{ $grants->{$_} }) . "\n" }
	  sort { $a <=> $b } grep { %{ $grants->{$_} } } keys %$grants;
}

# Shows where two lists of lines part, and writes down what was done to the strategy.
sub _show_difference
{
	my ($what, $name, $history, $found, $expected) = @_;
	my @found = split /\n/, $found;
	my @expected = split /\n/, $expected;
	my ($first) = grep { ($found[$_] // '') ne ($expected[$_] // '') } 0 .. @found + @expected;
	my $from = $first > 2 ? $first - 2 : 0;
	my $readable = sub {
		my ($line) = @_;
		return '-' if !defined $line;
		$line =~ s/(\d{13,})/time_text($1)/ge;
		return $line;
	};
	my $file = "$PostgreSQL::Test::Utils::log_path/year-$name.sql";

	diag("$what of $name differ; its history is in $file");
	diag('found    ' . $readable->($found[$_]) . "\nexpected " . $readable->($expected[$_])) foreach $from .. $first + 2;
	open my $out, '>', $file or die "$file: $!";
	print $out "$_->[1]\n" foreach grep { !defined $_->[0] || $_->[0] eq $name } @$history;
	close $out;
	return;
}

# Checks that runs and grants are what a simulation says, row by row and grant by grant; dies if not. The history is what was
# done: [strategy or undef, statement].
sub compare_runs
{
	my ($node, $simulation, $history, $title) = @_;
	my $rows = found_rows($node);
	my $grants = _found_grants($node);
	my %differ = (rows => [], grants => []);

	foreach my $name ($simulation->names)
	{
		my %pairs = (
			rows => [ $rows->{$name} // '', _expected_rows($simulation, $name) ],
			grants => [ $grants->{$name} // '', _expected_grants($simulation, $name) ]);
		foreach my $what (sort keys %pairs)
		{
			next if $pairs{$what}[0] eq $pairs{$what}[1];
			_show_difference($what, $name, $history, @{ $pairs{$what} }) if @{ $differ{$what} } < 3;
			push @{ $differ{$what} }, $name;
		}
	}
	is_deeply(\%differ, { rows => [], grants => [] }, $title);
	die 'what follows would differ too' if grep { @$_ } values %differ;
	return;
}

# What must hold whoever is right about the details: each firing of every schedule that a strategy had is in
# exactly one row, as many as the row says; rows of one reason do not follow each other; a row that ran has its
# grants, and no grant is without. How many firings there were, how many were run, and rows for the others.
sub account_for_firings
{
	my ($node, $simulation, $now) = @_;
	my $rows = found_rows($node);
	my ($firings, $runs, $stretches, @wrong) = (0, 0, 0);

	foreach my $name ($simulation->names)
	{
		my @open = $simulation->all_firings($name, $now);
		my $last = '';

		$firings += @open;
		foreach my $row (split /\n/, $rows->{$name} // '')
		{
			my ($first, $until, $occurrences, $state, $reason) = split / /, $row, 5;
			my $held = 0;

			push @wrong, "$name: a firing before $row is in no row" if !@open || $open[0] != $first;
			while (@open && $open[0] <= $until)
			{
				$held++;
				shift @open;
			}
			push @wrong, "$name: $row stands for $held" if $held != $occurrences;
			push @wrong, "$name: $row ran more than one" if $state ne 'skipped' && $occurrences != 1;
			push @wrong, "$name: $row could be in the row before" if $state eq 'skipped' && $reason eq $last;
			$last = $state eq 'skipped' ? $reason : '';
			$state eq 'skipped' ? $stretches++ : $runs++;
		}
		push @wrong, "$name: the firing $open[0] is in no row" if @open;
	}
	is_deeply(\@wrong, [], 'every firing is in one row');
	is($node->safe_psql('postgres', <<'SQL'), '', 'grants belong to the run of their firing, and are as many as it says');
SELECT 'grant', e.strategy_id, e.scheduled_time, e.id, r.scheduled_time
FROM quota_manager.quota_execute e LEFT JOIN quota_manager.quota_run r ON r.id = e.run_id
WHERE r.strategy_id IS DISTINCT FROM e.strategy_id OR coalesce(r.scheduled_time, '-infinity') <> e.scheduled_time OR e.id NOT BETWEEN r.first_grant_id AND r.last_grant_id
UNION ALL
SELECT 'run', r.strategy_id, r.scheduled_time, r.granted, NULL
FROM quota_manager.quota_run r
WHERE r.scheduled_time IS NOT NULL
	AND r.granted <> (SELECT count(*) FROM quota_manager.quota_execute e WHERE e.strategy_id = r.strategy_id AND e.scheduled_time = r.scheduled_time)
SQL
	is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_run WHERE scheduled_time IS NOT NULL'),
		$runs + $stretches, 'no more rows than firings that were run and stretches of those that were not');
	return ($firings, $runs, $stretches);
}

1;
