
=pod

=head1 NAME

QuotaTest::RandomStrategies - strategies and edits of them at random, with their firings

=head1 SYNOPSIS

  my $random = QuotaTest::RandomStrategies->new($from, $until, 'Europe/Berlin', ...);
  my %columns = $random->strategy('s1', $now);
  my %change = $random->edit(\%columns, $now);
  my $firings = $random->firings($columns{periodic_expr}, $columns{time_zone});
  my $sql = insert_sql(%columns);

=head1 DESCRIPTION

Times are whole microseconds since 1970, also in columns; valid_from and
valid_until beyond +-8**18 are infinite.  Many of them are at a firing, or a
microsecond beside it.  Firings come from QuotaTest::CronOracle.

=cut

package QuotaTest::RandomStrategies;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use POSIX qw(floor strftime);
use QuotaTest::CronOracle qw(use_zone readings schedule_of expected_firings);

our @EXPORT_OK = qw(pick between time_text insert_sql update_sql users_of);

my $second = 1_000_000;
my $hour = 3600 * $second;
my $day = 24 * $hour;
my $never = 9**18;

my %descriptors = (
	'@hourly' => '0 * * * *',
	'@daily' => '0 0 * * *',
	'@midnight' => '0 0 * * *',
	'@weekly' => '0 0 * * 0',
	'@monthly' => '0 0 1 * *',
	'@yearly' => '0 0 1 1 *');

# Three users of vip 0, 1 and 2, of whom the first and the last have 5, the second 50. Who meets a condition for
# certain; and the gateway where it asks for the balances of the first two.
my %conditions = (
	'true()' => [ [qw(u1 u2 u3)] ],
	'is-vip(1)' => [ [qw(u2 u3)] ],
	'match-user("u1")' => [ ['u1'] ],
	'false()' => [ [] ],
	'or(is-vip(2), quota-le("elsewhere", 10))' => [ ['u3'], 'elsewhere' ],
	'or(is-vip(2), quota-le("paid", 10))' => [ ['u3'], 'gateway' ]);

# Number of models that strategies share; a strategy fails while its model has no gateway.
our $models = 8;

sub pick { return $_[ rand @_ ] }
sub between { return $_[0] + int rand($_[1] - $_[0] + 1) }

# Who meets a condition, and whose answer depends on a balance that is not known.
sub users_of
{
	my ($condition, $known) = @_;
	my ($sure, $asked) = @{ $conditions{$condition} };

	return ($sure, []) if !defined $asked;
	return ([ $known->{$asked}{u1} ? 'u1' : (), @$sure ], [ grep { !$known->{$asked}{$_} } 'u1', 'u2' ]);
}

# From and until are the times between which firings are told.
sub new
{
	my ($class, $from, $until, @zones) = @_;

	return bless { from => $from, until => $until, zones => \@zones, firings => {}, readings => {} }, $class;
}

sub firings
{
	my ($self, $expr, $zone) = @_;
	my ($own_zone, $fields) = $expr =~ /^(?:CRON_TZ=(\S+) )?(.*)$/;
	my ($from, $until) = map { floor($_ / $second) } @{$self}{qw(from until)};

	$zone = $own_zone if defined $own_zone;
	$fields = $descriptors{$fields} // $fields;
	return $self->{firings}{"$zone $fields"} //= do
	{
		# Two days more on either side: what the first and the last date hold is not known.
		my $start = $from - $from % 60 - 2 * 86400;

		$self->{readings}{$zone} //= do
		{
			local $ENV{TZ};
			use_zone($zone);
			readings($start, ($until - $start) / 60 + 2 * 1440);
		};
		[ map { $_ * $second } expected_firings(schedule_of($fields), $self->{readings}{$zone}, $from, $until) ];
	};
}

# A schedule: often, every hour, day, week, month, or rarely.
sub _expr
{
	my ($self) = @_;
	my ($minute, $hour, $date, $weekday) = (between(0, 59), pick(between(0, 3), between(0, 23)), between(1, 31), between(0, 6));
	my $kind = rand;
	my $expr =
	    $kind < 0.12 ? pick('*/5 * * * *', '*/10 * * * *', '*/7 * * * *', '3/20 * * * *', '*/15 9-17 * * MON-FRI', '*/10 0-3 * * *', '* 2 * * *')
	  : $kind < 0.30 ? pick("$minute * * * *", "0,$minute * * * *", "$minute */" . between(2, 8) . ' * * *', '@hourly', "$minute 22-23,0-4 * * *")
	  : $kind < 0.62 ? pick("$minute $hour * * *", "$minute $hour * * ?", "$minute $hour,12 * * *", "$minute $minute $hour * * *", '@daily', '@midnight')
	  : $kind < 0.76 ? pick("$minute $hour * * $weekday", "$minute $hour * * MON-FRI", "$minute $hour * * SUN,WED", '@weekly', "$minute $hour * * FRI-SUN")
	  : $kind < 0.90 ? pick("$minute $hour $date * *", "$minute $hour 1,15 * *", "$minute $hour 31 * *", "$minute $hour $date * $weekday", '@monthly', "$minute $hour */10 * $weekday")
	  : pick("$minute $hour " . between(1, 28) . ' ' . between(1, 12) . ' *', "$minute $hour 1 */3 *", '@yearly', '0 0 29 2 *', "$minute $hour 25-31 DEC *");

	return rand() < 0.2 ? 'CRON_TZ=' . pick(@{ $self->{zones} }) . " $expr" : $expr;
}

# A time at, just before or just after a firing of a strategy, or any time, up to some days from now.
sub _time_near
{
	my ($self, $columns, $now) = @_;
	my $time = $now + int((rand() - 0.3) * pick(1, 10, 100) * $day);

	return $time if !defined $columns->{periodic_expr} || rand() < 0.15;
	my ($firing) = grep { $_ > $time } @{ $self->firings(@{$columns}{qw(periodic_expr time_zone)}) };
	return ($firing // $time) + pick(-1, 0, 0, 1);
}

sub _validity
{
	my ($self, $columns, $now) = @_;
	my %validity = (
		valid_from => $columns->{valid_from} // -$never,
		valid_until => $columns->{valid_until} // $never);
	my $changed = pick(sort keys %validity);

	$validity{$changed} = rand() < 0.6 ? $self->_time_near($columns, $now) : $changed eq 'valid_from' ? -$never : $never;
	$validity{ $changed eq 'valid_from' ? 'valid_until' : 'valid_from' } = $changed eq 'valid_from' ? $never : -$never
	  if $validity{valid_from} >= $validity{valid_until};
	return %validity;
}

sub _catch_up
{
	my ($self) = @_;
	my $window = pick(undef, undef, $second, 90 * $second, $hour, 36 * $hour, $day, 3 * $day, 30 * $day);

	return (
		catch_up => pick('none', 'latest', 'all'),
		catch_up_window => $window,
		catch_up_max => pick(1, 2, 3, 10, 10, 100, rand() < 0.2 ? 1000 : 5));
}

# The columns of a new strategy.
sub strategy
{
	my ($self, $name, $now) = @_;
	my %columns = (
		name => $name,
		type => 'periodic',
		amount => between(1, 9),
		model => 'm' . between(1, $models),
		periodic_expr => $self->_expr,
		time_zone => pick(@{ $self->{zones} }),
		condition => pick(sort keys %conditions),
		enabled => rand() < 0.92,
		archived => rand() < 0.03,
		valid_from => -$never,
		valid_until => $never,
		title => '',
		$self->_catch_up);

	%columns = (%columns, $self->_validity(\%columns, $now)) if rand() < 0.5;
	@columns{qw(type periodic_expr)} = ('single', undef) if rand() < 0.05;
	$columns{condition} = 'true()' if $columns{type} eq 'single';
	return %columns;
}

# What an edit changes, often one thing, sometimes several.
sub edit
{
	my ($self, $columns, $now) = @_;
	my %change;
	my $single = $columns->{type} eq 'single';
	my @kinds = (
		sub { (enabled => !$columns->{enabled}) },
		sub { (enabled => rand() < 0.7) },
		sub { (archived => $columns->{archived} ? 0 : rand() < 0.3) },
		sub { $single ? () : (periodic_expr => $self->_expr) },
		sub { $single ? () : (enabled => 0, periodic_expr => $self->_expr) },
		sub { (time_zone => pick(@{ $self->{zones} })) },
		(sub { $self->_validity($columns, $now) }) x 4,
		sub { (title => pick('one', 'another'), amount => between(1, 9)) },
		sub { $single ? () : (condition => pick(sort keys %conditions)) },
		sub { (model => 'm' . between(1, $models)) },
		(sub { $self->_catch_up }) x 2,
		$single ? (sub { (type => 'periodic', periodic_expr => $self->_expr) }) x 8 : (),
		!$single && rand() < 0.05 ? sub { (type => 'single', periodic_expr => undef, condition => 'true()') } : ());

	# What is out of use does not stay so for long.
	%change = (enabled => 1, archived => 0) if (!$columns->{enabled} || $columns->{archived}) && rand() < 0.4;
	%change = (%change, pick(@kinds)->()) foreach 1 .. pick(1, 1, 1, 2, 3);
	# Of two kinds, one may have made it single.
	$change{periodic_expr} = undef if ($change{type} // $columns->{type}) eq 'single' && exists $change{periodic_expr};
	return %change;
}

# A time as PostgreSQL and the schedule clock read it.
sub time_text
{
	my ($time) = @_;
	my $seconds = floor($time / $second);

	return strftime('%Y-%m-%d %H:%M:%S', gmtime $seconds) . sprintf '.%06d+00', $time - $seconds * $second;
}

# A column's value as SQL has it.
sub _literal
{
	my ($column, $value) = @_;

	return 'NULL' if !defined $value;
	return $value ? 'true' : 'false' if $column eq 'enabled' || $column eq 'archived';
	return q('-infinity') if $column =~ /^valid_/ && $value < -8**18;
	return q('infinity') if $column =~ /^valid_/ && $value > 8**18;
	return q(') . time_text($value) . q(') if $column =~ /^valid_/;
	return $value % $day ? "'" . $value / $second . " seconds'" : "'" . $value / $day . " days'" if $column eq 'catch_up_window';
	return "'$value'";
}

sub insert_sql
{
	my (%columns) = @_;
	my @names = sort keys %columns;

	return sprintf 'INSERT INTO quota_manager.quota_strategy (%s) VALUES (%s);',
	  join(', ', @names), join(', ', map { _literal($_, $columns{$_}) } @names);
}

sub update_sql
{
	my ($name, %change) = @_;

	return sprintf q(UPDATE quota_manager.quota_strategy SET %s WHERE name = '%s';),
	  join(', ', map { "$_ = " . _literal($_, $change{$_}) } sort keys %change), $name;
}

1;
