
=pod

=head1 NAME

QuotaTest::HttpServer - a PostgREST in front of a throw-away cluster

=head1 SYNOPSIS

  my $missing = QuotaTest::HttpServer::missing();    # why there can be none
  my $node = QuotaTest::HttpServer::http_node('http', roles => 1);
  my $rest = QuotaTest::HttpServer->start($node);
  my $reply = $rest->request('GET', '/strategies?id=eq.1', role => 'quota_viewer');
  is($reply->{status}, 200);
  is($reply->{json}[0]{name}, 'vip');

=head1 DESCRIPTION

It runs with the configuration of examples/http, on a free port of the loopback interface. The
program is the one that QUOTA_MANAGER_POSTGREST names, or the first on the PATH. It ends with the
test that started it, also when that dies.

=cut

package QuotaTest::HttpServer;

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use File::Basename qw(dirname);
use File::Spec ();
use HTTP::Tiny;
use JSON::PP;
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use QuotaTest::Wait qw(happens);

our $secret = 'a secret of tests that is longer than 32 bytes';
our $config = dirname(__FILE__) . "/../../../examples/http/postgrest.conf";

# A running server with the extension in a database of its own, quota. With roles => 1 it has the roles of docs/http.md,
# with their time-outs.
sub http_node
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$ENV{PGCLIENTENCODING} = 'UTF8';
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', "timezone = 'UTC'\nquota_manager.worker_role = 'quota_worker'\n");
	$node->append_conf('postgresql.conf', 'quota_manager.default_strategy_state = active') unless $option{drafts};
	$node->start;
	$node->safe_psql('postgres', 'CREATE DATABASE quota');
	$node->safe_psql('quota', q{
		CREATE EXTENSION quota_manager;
		CREATE ROLE quota_worker LOGIN;
		SELECT quota_manager.grant_access('quota_worker', 'worker')});
	if ($option{roles})
	{
		$node->safe_psql('quota', q{
			CREATE ROLE authenticator LOGIN NOINHERIT});
		foreach my $level ('viewer', 'operator', 'admin')
		{
			$node->safe_psql('quota', qq{
				CREATE ROLE quota_$level;
				SELECT quota_manager.grant_access('quota_$level', '$level');
				GRANT quota_$level TO authenticator;
				ALTER ROLE quota_$level SET lock_timeout = '1s'});
		}
	}
	return $node;
}

# What can be asked for, sorted: views by name, functions as rpc/NAME.
sub endpoints
{
	my ($node) = @_;

	# Neither functions of a row, which are relationships and fields, nor those of aggregates.
	return split /\n/, $node->safe_psql('quota', q{
		SELECT relname FROM pg_class WHERE relnamespace = 'quota_api'::regnamespace AND relkind = 'v'
		UNION SELECT 'rpc/' || proname FROM pg_proc p WHERE pronamespace = 'quota_api'::regnamespace AND prokind = 'f'
			AND NOT EXISTS (SELECT FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid = p.proargtypes[0] AND c.relnamespace = p.pronamespace)
			AND NOT EXISTS (SELECT FROM pg_aggregate a WHERE a.aggtransfn = p.oid OR a.aggfinalfn = p.oid)
		ORDER BY 1});
}

# The path of the program, or undef.
sub program
{
	my $named = $ENV{QUOTA_MANAGER_POSTGREST};

	return $named if defined $named && $named ne '';
	foreach my $folder (File::Spec->path)
	{
		return "$folder/postgrest" if -x "$folder/postgrest" && !-d _;
	}
	return;
}

# Why there is none to test with; undef where there is one.
sub missing
{
	my $program = program();

	return 'no postgrest on the PATH, and QUOTA_MANAGER_POSTGREST names none' if !defined $program;
	return "QUOTA_MANAGER_POSTGREST names $program, which cannot be run" if !-x $program;
	return;
}

# Starts one and waits until it has read the schema. Options: database (quota); set => { 'db-anon-role' => ... }; unready => 1
# does not wait.
sub start
{
	my ($class, $node, %option) = @_;
	my $self = bless {
		node => $node,
		database => $option{database} // 'quota',
		set => $option{set} // {},
		port => PostgreSQL::Test::Cluster::get_free_port(),
		admin_port => PostgreSQL::Test::Cluster::get_free_port(),
		log => PostgreSQL::Test::Utils::tempdir() . '/postgrest.log',
		# It closes the connection of a HEAD without saying so.
		http => HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default, max_redirect => 0, keep_alive => 0),
	}, $class;

	$self->_run;
	$self->wait_ready if !$option{unready};
	return $self;
}

# The shell ends it when this process does: then nothing holds the other end of its standard input any more.
sub _run
{
	my ($self) = @_;
	my %set = (
		'db-uri' => 'host=' . $self->{node}->host . ' port=' . $self->{node}->port
		  . " dbname=$self->{database} user=authenticator",
		'server-host' => '127.0.0.1',
		'server-port' => $self->{port},
		'admin-server-host' => '127.0.0.1',
		'admin-server-port' => $self->{admin_port},
		'jwt-secret' => $secret,
		%{ $self->{set} });
	my %environment = map { 'PGRST_' . uc($_ =~ tr/-/_/r) => $set{$_} } keys %set;
	local @ENV{ keys %environment } = values %environment;

	$self->{watcher} = open($self->{lifeline}, '|-', 'sh', '-c', <<'SH', 'sh', program(), $config, $self->{log});
"$1" "$2" </dev/null >"$3" 2>&1 &
server=$!
trap 'kill $server' TERM INT HUP
read -r end
kill $server
wait $server
SH
	return;
}

# Waits until the schema has been read.
sub wait_ready
{
	my ($self) = @_;

	happens(sub { $self->{http}->get("http://127.0.0.1:$self->{admin_port}/ready")->{status} == 200 })
	  or die "PostgREST is not ready:\n" . $self->log;
	return;
}

sub stop
{
	my ($self) = @_;
	local $?;

	close delete $self->{lifeline} if $self->{lifeline};
	return;
}

sub DESTROY
{
	my ($self) = @_;

	$self->stop;
	return;
}

# What it wrote to its log.
sub log
{
	my ($self) = @_;

	return -e $self->{log} ? PostgreSQL::Test::Utils::slurp_file($self->{log}) : '';
}

sub url
{
	my ($self) = @_;

	return "http://127.0.0.1:$self->{port}";
}

# A token for a role. Further claims may be given.
sub token
{
	my ($class, $role, %claim) = @_;
	my $json = JSON::PP->new->canonical;
	my $signed = join '.', map { encode_base64url($json->encode($_)) }
	  { alg => 'HS256', typ => 'JWT' }, { role => $role, exp => time + 3600, sub => 'tester', %claim };

	return "$signed." . encode_base64url(hmac_sha256($signed, $secret));
}

# Sends a request. Options: role (a token for it), headers, body (data that is sent as JSON), content (sent as it is).
# The reply is that of HTTP::Tiny, with the answer read as JSON where it is some.
sub request
{
	my ($self, $method, $path, %option) = @_;
	my %headers = %{ $option{headers} // {} };
	my %request = (headers => \%headers);

	$headers{Authorization} = 'Bearer ' . $self->token($option{role}) if defined $option{role};
	if (exists $option{body})
	{
		$headers{'Content-Type'} //= 'application/json';
		$request{content} = JSON::PP->new->utf8->allow_nonref->encode($option{body});
	}
	$request{content} = $option{content} if exists $option{content};

	my $reply = $self->{http}->request($method, $self->url . $path, \%request);

	$reply->{json} = eval { JSON::PP->new->utf8->allow_nonref->decode($reply->{content}) }
	  if ($reply->{headers}{'content-type'} // '') =~ /json/;
	return $reply;
}

1;
