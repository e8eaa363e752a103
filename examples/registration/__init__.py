"""The smallest honest picture: a producer, a service, and an event that leads to another.

eventkit run examples.registration.service:service
python -m examples.registration.producer --every 1
"""
