package RT::App;

# An application that counts, as an upstream: its state is a number, which
# each of its answers tells.
#
#     my $app = RT::App->new;
#     ... proxy_pass http://127.0.0.1:$port; ...
#     $app->set(7)        # its state from now on
#     $app->hold          # answers are made, but not sent, until ...
#     $app->release
#     $app->held          # how many are kept back
#     $app->count         # requests since reset
#     $app->log           # [method, uri, { header => value }] of each
#     $app->reset
#
# An answer is "state N\n" with X-State and an ETag "app-N" of its own, which
# it compares with If-None-Match, as applications do.  Arguments of the URI:
# status=N, etag=0 (none), modified=1 (Last-Modified, of 2020), accel=URI,
# cache=TEXT (Cache-Control, + for a space), size=N (bytes of filler).

use v5.36;
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw(decode_json encode_json);
use RT;

sub new ($class) {
    my $port = RT::free_port();
    my $out = RT::dir() . "/app-$port.log";
    my $pid = RT::spawn([$^X, '-I', RT::root() . '/t/lib', '-MIO::Socket',
        '-e', 'require RT::App::Server; RT::App::Server::serve(shift)', $port],
        out => $out);
    my $self = bless { port => $port, pid => $pid }, $class;
    RT::poll_until(sub { eval { $self->count; 1 } }, 10)
        // die 'the application does not start: ' . RT::slurp($out);
    return $self;
}

sub port ($self) { return $self->{port} }

sub _tell ($self, $path) {
    $self->{http} //= RT::HTTP->new($self->{port});
    my $r = eval {
        $self->{http}->send(GET => "/-/$path");
        $self->{http}->read;
    };
    if (!$r) {
        delete $self->{http};
        die "the application does not answer\n";
    }
    return $r->body;
}

sub set ($self, $n) { return $self->_tell("set/$n") }
sub hold ($self) { return $self->_tell('hold') }
sub release ($self) { return $self->_tell('release') }
sub held ($self) { return $self->_tell('held') }
sub count ($self) { return $self->_tell('count') }
sub reset ($self) { return $self->_tell('reset') }
sub log ($self) { return @{decode_json($self->_tell('log'))} }

1;
