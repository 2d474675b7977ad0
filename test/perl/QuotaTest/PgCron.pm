
=pod

=head1 NAME

QuotaTest::PgCron - servers with pg_cron, whose minutes pass when a test wants it

=head1 SYNOPSIS

  my $cron = QuotaTest::PgCron->start('name', clock => '2026-12-31 23:58:30');
  my $node = $cron->node;
  $node->safe_psql('postgres', 'SELECT quota_manager.schedule_jobs()');
  $cron->next_minute;

=cut

package QuotaTest::PgCron;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Clock;
use QuotaTest::Workers;

# Whether this machine has pg_cron.
sub is_available
{
	my ($share) = run_command([ 'pg_config', '--sharedir' ]);

	return -e "$share/extension/pg_cron.control";
}

# A server with pg_cron in database postgres, and the role of the workers.  libraries: what else is preloaded;
# client: jobs are run by connections rather than by background workers; settings: lines of configuration.
sub start
{
	my ($class, $name, %option) = @_;
	my $self = bless { clock => QuotaTest::Clock->new($option{clock}) }, $class;
	$self->{node} = $self->{clock}->with(
		sub {
			QuotaTest::Workers::cluster($name,
				settings => join("\n",
					"shared_preload_libraries = '" . join(',', 'pg_cron', @{ $option{libraries} // [] }) . "'",
					"timezone = 'UTC'", 'log_min_messages = info', 'cron.use_background_workers = on', $option{settings} // ''));
		});
	if ($option{client})
	{
		$self->{node}->append_conf('postgresql.conf', "cron.use_background_workers = off\ncron.host = '" . $self->{node}->host . "'");
		$self->{clock}->with(sub { $self->{node}->restart });
	}
	$self->{node}->safe_psql('postgres', 'CREATE EXTENSION pg_cron');
	return $self;
}

sub node
{
	my ($self) = @_;

	return $self->{node};
}

sub clock
{
	my ($self) = @_;

	return $self->{clock};
}

# How many runs of jobs have ended.
sub runs
{
	my ($self) = @_;

	return $self->{node}->safe_psql('postgres', q{SELECT count(*) FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')});
}

# Lets so many minutes pass at once, so that pg_cron fires, and waits until each of its jobs has been run.
sub next_minute
{
	my ($self, $minutes) = @_;
	my $node = $self->{node};
	my $expected = $self->runs + $node->safe_psql('postgres', 'SELECT count(*) FROM cron.job WHERE active');
	my $now = $self->{clock}->now;

	# just before, so that it is the minute that comes
	$self->{clock}->advance(60 * (int($now / 60) + ($minutes // 1)) - 0.05 - $now);
	# a signal wakes pg_cron, which otherwise looks every second
	$node->reload;
	QuotaTest::Workers::await($node, 'postgres',
		"SELECT count(*) >= $expected FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')");
	return;
}

1;
